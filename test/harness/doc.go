// Package harness is what the tests that need a whole runtime share: finding runsc, running commands
// in a sandbox with a time limit, temporary bundles and root file systems.
package harness
