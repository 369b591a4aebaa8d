package cmd

import (
	"husk/pkg/log"
	"husk/runsc/boot"
)

// newKernel makes the sentry of a sandbox.
func newKernel(b *boot.Boot, l *log.Logger) (boot.Kernel, error) { return boot.NewFake(b, l) }
