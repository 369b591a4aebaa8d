// Package tmpfs is the in-memory file system: directories and attributes are Go structs, the data of regular files lies in the
// sandbox's memory file, in sparse extents that the application maps directly.
//
// It imports vfs, mm, memfile and leaves.
//
// Locks, outer to inner:
//
//	inode.rw (regular files: excludes reads from truncation and writes)
//	  locks of mm
//	    inode.mu (attributes, entries, extents)
//	      memfile's lock
//
// Two inode.mu are never held at once but in rename, where the vfs' locks of directories keep others away.
package tmpfs
