// Package proc is procfs (proc(5)): processes as directories, facts about the system, and its settings below /proc/sys.
//
// An instance shows the PID namespace of who mounted it. Inodes of processes refer to a kernel.PID and never to a task, so that nothing that the name cache
// or an open file keeps holds a dead process or its memory. What is sensitive is checked at each access, by the rules of ptrace(2), "Ptrace access mode
// checking", and not only when a name is looked up.
//
// It must not import socket, syscalls or anything above; it imports kernel, ipc, vfs, mm and the sibling packages pseudo, nsfs and cgroupfs.
//
// Locks: none of its own but leaves; generators take those of kernel and mm.
package proc
