package ipc

import (
	"golang.org/x/sys/unix"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"
)

// Limits of semaphores, as /proc/sys/kernel/sem shows them.
const (
	SemMsl = 32000 // semaphores in a set
	SemMns = SemMsl * SemMni
	SemOpm = 500 // operations in a semop(2)
	SemMni = 32000
	SemVmx = 32767 // highest value
)

// Sems is the semaphore sets of a namespace.
type Sems struct {
	table[*SemSet]
	total int // semaphores in all sets; protected by mu
}

// SemSet is a semaphore set; the table's mu protects it.
type SemSet struct {
	Perm
	values  []semaphore
	queue   waiter.Queue
	waiting []*semWait
	undo    map[any][]int16 // adjustments at exit by process
	gone    bool
	OpTime  int64 // seconds since the epoch
}

type semaphore struct {
	value, pid int32
}

// semWait is a blocked semop(2): on which semaphore, and whether until it is zero.
type semWait struct {
	num  uint16
	zero bool
}

// SemOp is struct sembuf.
type SemOp struct {
	Num   uint16
	Op    int16
	Flags int16
}

// SemUndo is SEM_UNDO in SemOp.Flags.
const SemUndo = 0x1000

func (s *SemSet) perm() *Perm { return &s.Perm }

func newSems(user *auth.UserNamespace) *Sems {
	return &Sems{table: newTable[*SemSet](user, SemMni)}
}

// Get is semget(2).
func (s *Sems) Get(c *auth.Credentials, key, n int32, flags int) (int32, error) {
	if n < 0 || n > SemMsl {
		return 0, unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(c, key, flags, func(g *SemSet) error {
		if int(n) > len(g.values) {
			return unix.EINVAL
		}
		return nil
	}, func(p Perm) (*SemSet, error) {
		if n == 0 {
			return nil, unix.EINVAL
		}
		if s.total+int(n) > SemMns {
			return nil, unix.ENOSPC
		}
		s.total += int(n)
		return &SemSet{Perm: p, values: make([]semaphore, n)}, nil
	})
}

// Do is semtimedop(2) by process pid, whose adjustments belong to owner; deadline is of CLOCK_MONOTONIC.
func (s *Sems) Do(ctx vfs.Context, pid int32, owner any, id int32, ops []SemOp, deadline int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.find(id)
	if err != nil {
		return err
	}
	want := uint16(wantRead)
	for _, o := range ops {
		if int(o.Num) >= len(set.values) {
			return unix.EFBIG
		}
		if o.Op != 0 {
			want = wantWrite
		}
	}
	if err := set.check(ctx.Credentials(), want); err != nil {
		return err
	}
	for {
		blocked, err := set.try(pid, owner, ops)
		if err != nil || blocked == nil {
			return err
		}
		if blocked.Flags&unix.IPC_NOWAIT != 0 {
			return unix.EAGAIN
		}
		err = s.wait(ctx, set, &semWait{blocked.Num, blocked.Op == 0}, deadline)
		if set.gone {
			return unix.EIDRM
		}
		if err == unix.ETIMEDOUT {
			return unix.EAGAIN
		} else if err != nil {
			return unix.EINTR // semop(2) is never restarted
		}
	}
}

// wait releases mu and waits for a change of the set.
func (s *Sems) wait(ctx vfs.Context, set *SemSet, w *semWait, deadline int64) error {
	var e waiter.Entry
	sig := ctx.Waker()
	sig.Drain()
	e.Init(sig, waiter.EventIn)
	set.queue.EventRegister(&e)
	set.waiting = append(set.waiting, w)
	s.mu.Unlock()
	err := ctx.Block(sig.C, deadline)
	s.mu.Lock()
	set.queue.EventUnregister(&e)
	for i, x := range set.waiting {
		if x == w {
			set.waiting = append(set.waiting[:i], set.waiting[i+1:]...)
			break
		}
	}
	return err
}

// try does all of ops, or nothing, and gives the operation that has to wait. ERANGE.
func (s *SemSet) try(pid int32, owner any, ops []SemOp) (blocked *SemOp, err error) {
	done := 0
	adj := s.undo[owner]
	for ; done < len(ops); done++ {
		o := &ops[done]
		v := s.values[o.Num].value
		if o.Op == 0 && v != 0 || o.Op < 0 && v+int32(o.Op) < 0 {
			blocked = o
			break
		}
		if v+int32(o.Op) > SemVmx {
			err = unix.ERANGE
			break
		}
		if o.Flags&SemUndo != 0 {
			if adj == nil {
				adj = make([]int16, len(s.values))
				if s.undo == nil {
					s.undo = make(map[any][]int16)
				}
				s.undo[owner] = adj
			}
			if a := int32(adj[o.Num]) - int32(o.Op); a < -SemVmx-1 || a > SemVmx {
				err = unix.ERANGE
				break
			}
			adj[o.Num] -= o.Op
		}
		s.values[o.Num].value += int32(o.Op)
	}
	if done < len(ops) {
		for done--; done >= 0; done-- {
			o := &ops[done]
			s.values[o.Num].value -= int32(o.Op)
			if o.Flags&SemUndo != 0 {
				adj[o.Num] += o.Op
			}
		}
		return blocked, err
	}
	changed := false
	for _, o := range ops {
		s.values[o.Num].pid = pid
		changed = changed || o.Op != 0
	}
	s.OpTime = now()
	if changed {
		s.queue.Notify(waiter.EventIn)
	}
	return nil, nil
}

// Exit applies the adjustments of a process that ends.
func (s *Sems) Exit(owner any, pid int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if !s.slots[i].used {
			continue
		}
		set := s.slots[i].obj
		adj, ok := set.undo[owner]
		if !ok {
			continue
		}
		delete(set.undo, owner)
		for n, a := range adj {
			if a != 0 {
				v := &set.values[n]
				v.value = min(max(v.value+int32(a), 0), SemVmx)
				v.pid = pid
			}
		}
		set.OpTime = now()
		set.queue.Notify(waiter.EventIn)
	}
}

// with calls f for a set that c has the right want to. EINVAL, EIDRM, EACCES.
func (s *Sems) with(c *auth.Credentials, id int32, want uint16, f func(*SemSet) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.find(id)
	if err != nil {
		return err
	}
	if err := set.check(c, want); err != nil {
		return err
	}
	return f(set)
}

// Values is GETALL.
func (s *Sems) Values(c *auth.Credentials, id int32) (list []uint16, err error) {
	err = s.with(c, id, wantRead, func(set *SemSet) error {
		for _, v := range set.values {
			list = append(list, uint16(v.value))
		}
		return nil
	})
	return list, err
}

// Count is the number of semaphores in a set that c may write, for SETALL.
func (s *Sems) Count(c *auth.Credentials, id int32) (n int, err error) {
	err = s.with(c, id, wantWrite, func(set *SemSet) error {
		n = len(set.values)
		return nil
	})
	return n, err
}

// SetValues is SETALL. ERANGE.
func (s *Sems) SetValues(c *auth.Credentials, pid, id int32, list []uint16) error {
	return s.with(c, id, wantWrite, func(set *SemSet) error {
		if len(list) != len(set.values) {
			return unix.EINVAL
		}
		for _, v := range list {
			if v > SemVmx {
				return unix.ERANGE
			}
		}
		for i, v := range list {
			set.values[i] = semaphore{int32(v), pid}
		}
		clear(set.undo)
		set.changed()
		return nil
	})
}

func (s *SemSet) changed() {
	s.Changed = now()
	s.queue.Notify(waiter.EventIn)
}

// SetValue is SETVAL. ERANGE, EINVAL.
func (s *Sems) SetValue(c *auth.Credentials, pid, id, num, v int32) error {
	if v < 0 || v > SemVmx {
		return unix.ERANGE
	}
	return s.with(c, id, wantWrite, func(set *SemSet) error {
		if num < 0 || int(num) >= len(set.values) {
			return unix.EINVAL
		}
		set.values[num] = semaphore{v, pid}
		for _, adj := range set.undo {
			adj[num] = 0
		}
		set.changed()
		return nil
	})
}

// SemState is what semctl(2) tells of one semaphore: value, last process, and numbers of waiters for more and for zero.
type SemState struct {
	Value, PID, More, Zero int32
}

// State gives SemState. EINVAL, EIDRM, EACCES.
func (s *Sems) State(c *auth.Credentials, id, num int32) (st SemState, err error) {
	err = s.with(c, id, wantRead, func(set *SemSet) error {
		if num < 0 || int(num) >= len(set.values) {
			return unix.EINVAL
		}
		st.Value, st.PID = set.values[num].value, set.values[num].pid
		for _, w := range set.waiting {
			if int32(w.num) != num {
				continue
			}
			if w.zero {
				st.Zero++
			} else {
				st.More++
			}
		}
		return nil
	})
	return st, err
}

// SemStat is what IPC_STAT tells.
type SemStat struct {
	Perm
	OpTime, Changed int64
	Count           int
}

// Stat is IPC_STAT of an identifier, or with index set SEM_STAT of a slot; any is SEM_STAT_ANY.
func (s *Sems) Stat(c *auth.Credentials, id int32, index, any bool) (SemStat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	find := s.find
	if index {
		find = s.byIndex
	}
	set, err := find(id)
	if err != nil {
		return SemStat{}, err
	}
	if !any {
		if err := set.check(c, wantRead); err != nil {
			return SemStat{}, err
		}
	}
	return SemStat{set.Perm, set.OpTime, set.Perm.Changed, len(set.values)}, nil
}

// Set is IPC_SET.
func (s *Sems) Set(c *auth.Credentials, id int32, o Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.find(id)
	if err != nil {
		return err
	}
	return set.set(c, o)
}

// Remove is IPC_RMID: who waits gets EIDRM.
func (s *Sems) Remove(c *auth.Credentials, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.find(id)
	if err != nil {
		return err
	}
	if err := set.own(c); err != nil {
		return err
	}
	set.gone = true
	s.total -= len(set.values)
	s.remove(&set.Perm)
	set.queue.Notify(waiter.EventIn)
	return nil
}

// Info is the counts of SEM_INFO: sets, semaphores in all, and the highest slot in use.
func (s *Sems) Info() (sets, semaphores, highest int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.total, s.highest()
}

// ForEach calls f for all sets (/proc/sysvipc/sem).
func (s *Sems) ForEach(f func(SemStat)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].used {
			set := s.slots[i].obj
			f(SemStat{set.Perm, set.OpTime, set.Perm.Changed, len(set.values)})
		}
	}
}
