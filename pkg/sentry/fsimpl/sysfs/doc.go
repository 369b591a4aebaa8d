// Package sysfs is sysfs(5) as far as programs in containers look at it: processors, memory nodes, the loopback device, settings of memory management,
// and the places where other file systems are mounted. Nothing in it can be changed.
//
// It imports kernel, vfs, arch and the sibling package pseudo. It has no locks of its own.
package sysfs
