// Package container is the OCI state machine: a container is a directory below the runtime's root
// with a state file and the sandbox's control socket in it, and the processes that the state file
// names. Every operation starts from what is on disk and in the process table, so it copes with
// whatever a killed command, sandbox or gofer left behind.
//
// A lock on the directory (flock(2)) serialises the operations on a container.
package container
