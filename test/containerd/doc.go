// Package containerd runs containers through a private containerd and its shim for runc, which is told to use another
// binary: every case passes on runc first, and must then give the same on runsc.
package containerd
