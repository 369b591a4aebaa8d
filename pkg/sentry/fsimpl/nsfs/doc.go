// Package nsfs has the files that stand for namespaces (namespaces(7)): what the links of /proc/PID/ns lead to, and what setns(2) takes.
//
// It imports kernel, vfs and leaves. It has no locks.
package nsfs
