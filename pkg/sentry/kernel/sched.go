package kernel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxCPUs bounds the processors that the application can see.
const maxCPUs = 1024

// SchedResetOnFork is the flag of policies whose children get the default one.
const SchedResetOnFork = 0x40000000

// CPUSet is a mask of processors.
type CPUSet [maxCPUs / 64]uint64

// schedState is what sched(7) calls set. The host's scheduler runs the threads; the values are kept for those who ask.
type schedState struct {
	policy   atomic.Int32
	priority atomic.Int32
	nice     atomic.Int32
	affinity atomic.Pointer[CPUSet] // nil: every processor
}

func (s *schedState) inherit(o *schedState) {
	p := o.policy.Load()
	if p&SchedResetOnFork != 0 {
		p = 0
	} else {
		s.priority.Store(o.priority.Load())
	}
	s.policy.Store(p)
	s.nice.Store(o.nice.Load())
	s.affinity.Store(o.affinity.Load())
}

// SchedPolicy and its like are the values of sched_setscheduler(2). Any goroutine.
func (t *Task) SchedPolicy() (policy, priority int32) {
	return t.sched.policy.Load(), t.sched.priority.Load()
}

// SetSchedPolicy stores checked values.
func (t *Task) SetSchedPolicy(policy, priority int32) {
	t.sched.policy.Store(policy)
	t.sched.priority.Store(priority)
}

// Nice is the nice value, -20 to 19. Any goroutine.
func (t *Task) Nice() int32 { return t.sched.nice.Load() }

// SetNice stores a checked value.
func (t *Task) SetNice(n int32) { t.sched.nice.Store(n) }

// Affinity is the mask of sched_getaffinity(2). Any goroutine.
func (t *Task) Affinity() CPUSet {
	if p := t.sched.affinity.Load(); p != nil {
		return *p
	}
	return t.k.AllCPUs()
}

// SetAffinity stores the part of m that exists; EINVAL if there is none.
func (t *Task) SetAffinity(m CPUSet) error {
	all := t.k.AllCPUs()
	any := uint64(0)
	for i := range m {
		m[i] &= all[i]
		any |= m[i]
	}
	if any == 0 {
		return unix.EINVAL
	}
	t.sched.affinity.Store(&m)
	return nil
}

// AllCPUs is the mask of visible processors.
func (k *Kernel) AllCPUs() (m CPUSet) {
	for i := 0; i < k.numCPU && i < maxCPUs; i++ {
		m[i/64] |= 1 << (i % 64)
	}
	return
}

// CPU is a processor number for getcpu(2): one that the affinity allows.
func (t *Task) CPU() int {
	m := t.Affinity()
	for i, w := range m {
		if w != 0 {
			return i*64 + lowestBit(w)
		}
	}
	return 0
}

// IOPrio is ioprio_get(2)'s value. Any goroutine.
func (t *Task) IOPrio() int32 { return t.ioprio.Load() }

// SetIOPrio stores a checked value.
func (t *Task) SetIOPrio(v int32) { t.ioprio.Store(v) }

// hostCPUs is the number of processors that the sandbox may use.
func hostCPUs() int {
	var s unix.CPUSet
	if unix.SchedGetaffinity(0, &s) != nil {
		return 1
	}
	return max(s.Count(), 1)
}
