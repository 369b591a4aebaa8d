package systrap

import (
	"testing"

	"husk/pkg/platform"
	"husk/pkg/platform/platformtest"
)

func TestPlatform(t *testing.T) {
	platformtest.Run(t, platformtest.Config{
		New:      New,
		Contexts: 60,
		Stub:     func(as platform.AddressSpace) int { return as.(*addressSpace).pid },
	})
}
