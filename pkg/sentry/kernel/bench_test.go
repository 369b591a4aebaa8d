package kernel_test

import (
	"testing"

	"husk/pkg/arch"
	"husk/pkg/platform"

	"golang.org/x/sys/unix"
)

// loopContext is a context whose application makes the same system call again and again: what is measured is the kernel's own path.
type loopContext struct {
	*thread
	n    int
	nr   uint64
	args [6]uint64
}

func (c *loopContext) Switch(_ platform.AddressSpace, r *arch.Registers) (platform.Event, error) {
	r.OrigRax, r.Rax = c.nr, c.nr
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5]
	if c.n--; c.n < 0 {
		r.OrigRax, r.Rdi = unix.SYS_EXIT_GROUP, 0
	}
	return platform.Event{Kind: platform.EventSyscall}, nil
}

// loopPlatform makes loop contexts.
type loopPlatform struct {
	*fakePlatform
	ctx *loopContext
}

func (p *loopPlatform) NewContext() platform.Context {
	p.ctx.thread = p.fakePlatform.NewContext().(*thread)
	return p.ctx
}

func benchmarkCall(b *testing.B, nr uint64, args ...uint64) {
	w := newWorldOn(b, func(p *fakePlatform) platform.Platform {
		c := &loopContext{n: b.N, nr: nr}
		copy(c.args[:], args)
		return &loopPlatform{p, c}
	})
	b.ReportAllocs()
	b.ResetTimer()
	var u, v unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	<-w.spawn(nil).Done()
	unix.Getrusage(unix.RUSAGE_SELF, &v)
	// Wall time says little on a busy machine.
	b.ReportMetric(float64(v.Utime.Nano()-u.Utime.Nano()+v.Stime.Nano()-u.Stime.Nano())/float64(b.N), "cpu-ns/op")
}

func BenchmarkGetpid(b *testing.B) { benchmarkCall(b, unix.SYS_GETPID) }

func BenchmarkClockGettime(b *testing.B) {
	benchmarkCall(b, unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, fakeData)
}

func BenchmarkFutexWakeNobody(b *testing.B) { benchmarkCall(b, unix.SYS_FUTEX, fakeData, 129, 1) }

func BenchmarkSigprocmask(b *testing.B) {
	benchmarkCall(b, unix.SYS_RT_SIGPROCMASK, 0, 0, fakeData, 8)
}
