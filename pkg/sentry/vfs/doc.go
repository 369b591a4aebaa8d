// Package vfs is the virtual file system: names, mounts, open files and descriptors.
//
// A file system implements InodeOps, SuperblockOps, FileSystemType and FileImpl, with single names and no paths. vfs holds
// what is the same for all: the cache of names (Dentry), mounts and their propagation, the path walk, permissions, open file
// descriptions (FileDescription), descriptors (FDTable), file locks, event hooks of inotify, and copies between files.
//
// The walk reads the cache without locks and without references: dentries are freed by the garbage collector, hash chains are only
// changed in a way that readers survive, and the place that a walk ends at is referenced before it is used; where
// that fails because the place died meanwhile, the walk starts again.
//
// The package must not import kernel, file systems or anything above; it imports mm and the leaves.
//
// Locks, outer to inner:
//
//	FileDescription.offMu
//	  locks of file systems, inodes
//	Superblock.renameMu
//	  dirData.rw, ancestor before descendant, else by address; file systems run with it held
//	    locks of file systems, directories
//	    VFS.mountMu
//	      dirData.mu
//	        dentryCache.mu
//	FSContext.mu
//	FDTable.mu
//	lockTable.mu
//	  inodeExt.mu
//	FileDescription.mu: a leaf
//
// InodeOps.Release and SuperblockOps.Release may run in any of these but under mountMu, dirData.mu and dentryCache.mu: they must not
// call back into vfs.
package vfs
