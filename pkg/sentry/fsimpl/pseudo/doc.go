// Package pseudo has the parts of which synthetic file systems (proc, sysfs, devpts and the like) are made: inodes with attributes in
// memory, fixed and dynamic directories, symlinks, and files whose content is generated when it is read.
//
// It imports vfs, mm and leaves.
//
// Locks: Dir.mu and Node.mu are leaves; no generator runs with them held.
package pseudo
