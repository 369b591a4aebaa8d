// Package limits holds resource limits (getrlimit(2)). It is a leaf.
package limits
