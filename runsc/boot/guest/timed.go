package guest

import (
	"sync/atomic"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/runsc/boot"
)

// timedPlatform notes when the first application thread of the sandbox enters and leaves the application for the first time. It
// is there with --debug only.
type timedPlatform struct {
	platform.Platform
	time          *boot.Timeline
	entered, left atomic.Bool
}

// NewContext implements platform.Platform.
func (p *timedPlatform) NewContext() platform.Context {
	c := p.Platform.NewContext()
	if p.left.Load() {
		return c
	}
	return &timedContext{Context: c, p: p}
}

type timedContext struct {
	platform.Context
	p *timedPlatform
}

// Switch implements platform.Context.
func (c *timedContext) Switch(as platform.AddressSpace, regs *arch.Registers) (platform.Event, error) {
	if c.p.left.Load() {
		return c.Context.Switch(as, regs)
	}
	if c.p.entered.CompareAndSwap(false, true) {
		c.p.time.Mark("first instruction of the application")
	}
	ev, err := c.Context.Switch(as, regs)
	if err == nil && ev.Kind == platform.EventSyscall && c.p.left.CompareAndSwap(false, true) {
		c.p.time.Mark("first system call of the application")
	}
	return ev, err
}
