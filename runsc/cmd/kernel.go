//go:build !fakekernel

package cmd

import (
	"husk/pkg/log"
	"husk/runsc/boot"
	"husk/runsc/boot/guest"
)

// newKernel makes the sentry of a sandbox.
func newKernel(b *boot.Boot, l *log.Logger) (boot.Kernel, error) { return guest.New(b, l) }
