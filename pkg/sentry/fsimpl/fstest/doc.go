// Package fstest checks file systems in unit tests: a World is a mount namespace over the one under test, and Differ runs random
// operations on it and in a directory of the host, which must agree on every result.
//
// It is imported by tests only.
package fstest
