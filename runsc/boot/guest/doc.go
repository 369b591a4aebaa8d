// Package guest builds what a boot message describes: the platform, the sentry's kernel, a container's
// mounts, devices and first process. It implements boot.Kernel, what the control server drives.
//
// It may import anything of the sentry; nothing but runsc/cmd imports it.
//
// Lock order: Guest.mu is taken before any lock of the sentry.
package guest
