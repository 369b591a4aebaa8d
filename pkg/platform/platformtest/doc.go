// Package platformtest is the suite that every platform must pass: Run drives a platform with hand-assembled
// programs. It makes its own memory file, and needs nothing but pkg/platform and pkg/arch.
package platformtest
