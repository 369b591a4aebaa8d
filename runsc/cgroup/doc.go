// Package cgroup puts a container's host processes into cgroups and limits them: version 1
// hierarchies, the unified hierarchy, and both side by side.
//
// It is a leaf of runsc/: it must not import its siblings.
package cgroup
