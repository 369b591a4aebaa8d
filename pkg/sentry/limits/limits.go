package limits

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Count is the number of resources, RLIM_NLIMITS.
const Count = 16

// Infinity is RLIM_INFINITY.
const Infinity = ^uint64(0)

// Limit is struct rlimit.
type Limit struct {
	Cur, Max uint64
}

// Set is the limits of a thread group.
type Set struct {
	mu   sync.Mutex
	data [Count]Limit // protected by mu
}

// New gives the limits that Linux starts init with.
func New() *Set {
	s := &Set{}
	for i := range s.data {
		s.data[i] = Limit{Infinity, Infinity}
	}
	s.data[unix.RLIMIT_STACK] = Limit{8 << 20, Infinity}
	s.data[unix.RLIMIT_CORE] = Limit{0, Infinity}
	s.data[unix.RLIMIT_NOFILE] = Limit{1024, 1 << 20}
	s.data[unix.RLIMIT_MEMLOCK] = Limit{8 << 20, 8 << 20}
	s.data[unix.RLIMIT_SIGPENDING] = Limit{65536, 65536}
	s.data[unix.RLIMIT_MSGQUEUE] = Limit{819200, 819200}
	s.data[unix.RLIMIT_NICE] = Limit{0, 0}
	s.data[unix.RLIMIT_RTPRIO] = Limit{0, 0}
	return s
}

// Get returns the limit of resource r (0 <= r < Count).
func (s *Set) Get(r int) Limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[r]
}

// Replace stores l as the limit of r and returns the old one. EINVAL where Cur > Max, EPERM where the hard limit would
// grow and privileged is false.
func (s *Set) Replace(r int, l Limit, privileged bool) (Limit, error) {
	if l.Cur > l.Max {
		return Limit{}, unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.data[r]
	if l.Max > old.Max && !privileged {
		return Limit{}, unix.EPERM
	}
	s.data[r] = l
	return old, nil
}

// Clone copies the set for fork(2).
func (s *Set) Clone() *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Set{data: s.data}
}
