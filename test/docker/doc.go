// Package docker runs containers through Docker: an unmodified Debian userland in Husk's
// sandbox. RUNTIME=runc runs the same tests on runc, as the oracle.
package docker
