// Package clock reads the host's clocks as nanoseconds without allocation, and calls functions at given times. The sandbox's clocks are
// the host's (the application reads them through the host's vdso), so both agree. It is a leaf.
package clock
