// Package heap makes the sentry's own heap grow in huge pages: the first use of a page costs 20 to 25 us in a virtual machine with shadow page
// tables, that of a huge page 0.2 ms. A heap that hardly grows, as an idle container's, keeps small ones, which take less memory.
//
// The package must not import anything of the sentry. It has no locks.
package heap
