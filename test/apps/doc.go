// Package apps runs unmodified programs on the host and in a sandbox over the host's file system and
// compares output and exit codes.
package apps
