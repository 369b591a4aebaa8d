// Package gofer is the file system of the sentry that shows files of the host, by way of the file broker
// (pkg/gofer).
//
// An attach point is exclusive or shared. Nobody but the sentry changes an exclusive one (the container's
// root): names, attributes and listings are cached until the sentry changes them itself. In a
// shared one (bind mounts) each name is confirmed and attributes are asked for anew. One that is exclusive and read-only (the root below an overlay) is
// frozen: nothing changes at all, so that names stand for files that the broker has no descriptor of (see handle.go), and a read at the end of a file needs
// no host.
//
// In an exclusive one, what a program that walks a tree is about to look up, open and list is asked for ahead, many names in a request: see ahead.go. In one
// that walks a tree again, the files are known, and their descriptors are asked for in the order of the last time: see again.go.
//
// Data goes between the host's page cache and user memory without the broker: an inode holds host
// descriptors, at most one for reading and one for reading and writing, that all open files and
// mappings of it use, and that stay open some time after the last close. There is no page cache in the
// sentry, so reads, writes and mappings are coherent, but for a few blocks of files that nobody changes: see block.go.
//
// FIFOs and sockets have inodes on the host, so that they are seen in directories and keep their
// attributes, but what is behind them lives in the sentry. Device nodes can be listed and not made,
// except overlay whiteouts; the devices are the sentry's.
//
// It imports vfs, mm, leaves and pkg/gofer, nothing above.
//
// Locks:
//
//	inode.appendMu
//	  locks of mm (user copies)
//	inode.mu, held over requests to the broker
//	  locks of vfs' cache and of other inodes that nobody uses, when names leave it to make room for handles
//	  filesystem.tableMu
//	  filesystem.idleMu
//	again.mu
//	blocks.mu
//	dirFile.mu
package gofer
