// Package socket is what all address families have in common: the Socket interface that the system calls of
// socket(2) work on, the registry of families, ancillary data, and the options of level SOL_SOCKET.
//
// A family (socket/unix, socket/inet, socket/netlink) registers a Family with the kernel's Registry; the
// system calls never know which one they talk to. The package must not import the families or fsimpl.
//
// Lock order: Options has atomics only; Registry is written at start and only read later.
package socket
