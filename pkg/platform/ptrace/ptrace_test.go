package ptrace

import (
	"testing"

	"husk/pkg/platform"
	"husk/pkg/platform/platformtest"
)

func TestPlatform(t *testing.T) {
	platformtest.Run(t, platformtest.Config{
		New:      func() (platform.Platform, error) { return New() },
		Stub:     func(as platform.AddressSpace) int { return int(as.(*addressSpace).leader) },
		Contexts: 400,
	})
}

func BenchmarkPlatform(b *testing.B) {
	p, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Release()
	platformtest.Benchmark(b, p)
}
