// Package gofer is the file broker: the wire protocol, the server that runs outside of the sandbox
// with the container's mounts, and the client that the sentry uses.
//
// One server process serves one container over one SOCK_SEQPACKET connection. The container's mounts
// (the root file system and bind mounts) are its attach points. A client names files by handles, which
// stand for O_PATH descriptors of the server, plus single path components. Data does not pass
// through the server: Open donates a host descriptor of the file. Siblings looks up many names of a directory in one request, and may bring
// descriptors of the files and lists of the directories along; Start is Siblings without waiting for the reply.
//
// # What the server promises
//
// Every byte from the client is hostile. Every name is one component (no "/", NUL, "." or ".."),
// resolved by openat2(2) relative to a descriptor that the server owns, beneath it and without
// following links. Nested mounts inside an attach point are visible, as in a container without a
// sandbox: the attach descriptors are opened in the server's own mount namespace, so what is
// mounted there is meant to be seen. Read-only attach points refuse every change. Only
// descriptors of regular files, and by policy of FIFOs, listed devices and connected sockets, are
// donated; never one of a directory, from which ".." would lead outside. Descriptors that a client
// sends are dropped by the kernel before they reach the process.
//
// Permission checks are the client's: the sentry knows the container's credentials, the server acts
// with its own.
//
// # Messages
//
// A message is one packet of at most MaxMessage bytes, little endian. A request is a header (length,
// tag, operation, number of trailing handles), the operation's fields and a trailer of handles to
// close. A reply is a header (length, tag, errno) and the operation's results. Replies come in any
// order; the tag, chosen by the client, pairs them. The first request must be Hello, which agrees
// on the version.
//
// The package imports nothing of the module but pkg/seccomp.
//
// Lock order:
//
//	Client.mu
//	server.mu
//	stream.mu
//	  table.mu
package gofer
