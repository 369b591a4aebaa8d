// Package proctest helps to test file systems that show processes: a kernel on a platform whose processes exist but execute nothing, and calls on files by
// path as any user. Only tests import it.
package proctest
