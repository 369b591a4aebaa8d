package systrap

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
	"husk/pkg/platform/platformtest"
)

func TestPlatform(t *testing.T) {
	platformtest.Run(t, platformtest.Config{
		New: func() (platform.Platform, error) {
			p, err := New()
			if err == nil {
				// The tests wait for each death to be noticed.
				p.(*systrap).pace.poll, p.(*systrap).pace.patience = unix.Timespec{Nsec: 50e6}, 200
			}
			return p, err
		},
		Contexts: 60,
		Stub:     func(as platform.AddressSpace) int { return as.(*addressSpace).pid },
	})
}
