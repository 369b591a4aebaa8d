// Package sandbox is the launcher's side of a sandbox: it starts the sandbox and gofer processes
// in their namespaces, hands them their boot messages, and talks to the control socket later on.
// What comes back from a sandbox is hostile: bounded, checked, and never trusted with a path or a
// process id.
//
// The package must not import runsc/cmd or runsc/container.
package sandbox
