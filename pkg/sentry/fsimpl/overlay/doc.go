// Package overlay merges directory trees: a writable upper one over one or more lower ones that never change, as Linux' overlayfs
// does (kernel documentation, filesystems/overlayfs.rst). What is changed is first copied up. Whiteouts are character devices 0:0, opaque directories
// have the attribute trusted.overlay.opaque, as there.
//
// Layers are inodes of other file systems, whose operations are called directly: their own dentry caches and permissions play no
// part. Differences from Linux, all towards what applications expect: a file that was open for reading when it was copied up is
// read from the copy from then on, and so are its mappings; all files show one device number. A directory that has a part in a lower
// layer can be renamed, as with redirect_dir: the attribute trusted.overlay.redirect of its upper part says where the lower ones are.
//
// Locks, outer to inner:
//
//	the locks of vfs on the overlay's directories
//	  inode.copyMu, parent before child
//	    inode.upperMu (changes of the directory in the upper layer)
//	      locks of the layers
//	  file.mu
//	  inode.absentMu, fileSystem.mu: leaves
package overlay
