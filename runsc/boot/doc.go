// Package boot is what happens inside the sandbox process between its exec and the application's
// last breath: it receives the one boot message of the launcher, locks the process up (empty root,
// no capabilities, seccomp), builds the containers in the sentry's kernel and serves the control
// connections of later commands. The codec and the message types are shared with the launcher.
//
// Both sides of the codec distrust the other: every length, count and descriptor index is checked
// against what was received, so a hostile sandbox can make a command fail and nothing else.
//
// The package must not import runsc/cmd, runsc/container or runsc/sandbox.
//
// Lock order:
//
//	Server.mu
package boot
