//go:build fakekernel

package cmd

import (
	"husk/pkg/log"
	"husk/runsc/boot"
)

// newKernel makes a kernel that executes nothing, to test everything around it.
func newKernel(b *boot.Boot, l *log.Logger) (boot.Kernel, error) { return boot.NewFake(b, l) }
