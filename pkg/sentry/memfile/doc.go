// Package memfile holds File, the one memory file that backs all application memory and the data of
// in-memory file systems of a sandbox.
//
// The file is a sparse one on a tmpfs with huge pages where the host gives one, else a sealed memfd. It is
// mapped into the sentry once as a whole, so that any range of it is a byte slice without a lock or a system
// call. Owners hold counted references on ranges; a range whose count drops to zero is punched (its pages
// go back to the host) before it is handed out again, so allocations always read as zeros. Small ranges keep their pages for a second, for
// who overwrites them, or has them zeroed: that costs less than new pages.
//
// The package must not import anything of the sentry but ranges.
//
// Locks: File.mu is a leaf. Nothing is called with it held but the host's fallocate, fstat.
package memfile
