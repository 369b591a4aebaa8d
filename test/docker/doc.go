// Package docker runs containers through Docker and through containerd's ctr: an unmodified Debian userland in Husk's
// sandbox. RUNTIME=runc runs the same tests on runc, as the oracle.
package docker
