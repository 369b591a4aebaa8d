// Package cgroupfs shows a container's limits and use of resources as cgroups(7) does: the unified hierarchy ("cgroup2"), or the hierarchies of version 1
// ("cgroup" with controllers as options). A container sees itself at the root, and cannot make groups below.
//
// It imports kernel, vfs and the sibling package pseudo. What a file holds is the reader's container's. It has no locks of its own.
package cgroupfs
