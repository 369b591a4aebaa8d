package kernel

import "sync/atomic"

type posixTimer struct{}

func (p *posixTimer) delivered(any) {}

type groupTimers struct{}

const groupStopped = 1

type groupStop struct{ state int }

func (tg *ThreadGroup) continueLocked() {}

type rusage struct{}
type taskAccounting struct{}

func (*taskAccounting) beginBlock() {}
func (*taskAccounting) endBlock()   {}

type futexWaiter struct{}
type futexManager struct{}
type rseqState struct{}
type seccompState struct{}
type schedState struct{}
type linuxRestart struct{}
type exitState struct{ done atomic.Bool }
type ptraceState struct{ tracer atomic.Pointer[Task] }
type vforkWait struct{}

func hostCPUs() int { return 1 }
