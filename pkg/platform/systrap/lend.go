package systrap

import "sync/atomic"

// Where an address space has several threads, a blocked context lends its own. Whoever needs one takes the last lent one
// if that still spins, which saves the wake-up of another, and one that sleeps instead of starting more than a few.
// The context's state stays in the thread until somebody takes it: mostly nobody does.

// lendThreads is how many threads an address space has for each processor before blocked contexts lose theirs. Four
// keep the threads of most programs where they are; each costs about 40 KB of the host's memory.
const lendThreads = 4

// lendThread makes the blocked context's thread available to others.
func (c *context) lendThread(t *thread) {
	a := t.as
	if a.several.Load() {
		a.lend.Lock()
		t.owner = c
		a.lent = append(a.lent, t)
		a.lend.Unlock()
		c.lent = a
	}
}

// claim takes the thread back, if it is lent and nobody has taken it.
func (c *context) claim() {
	a := c.lent
	if a == nil {
		return
	}
	c.lent = nil
	a.lend.Lock()
	defer a.lend.Unlock()
	t := c.thread
	if t == nil {
		return
	}
	for i := len(a.lent) - 1; i >= 0; i-- {
		if a.lent[i] == t {
			a.lent = append(a.lent[:i], a.lent[i+1:]...)
			break
		}
	}
	t.owner = nil
}

// steal takes a lent thread from its context: the last one if warm, which must spin, else one that sleeps. The caller
// has a reference to a. It gives nil if there is none.
func (a *addressSpace) steal(warm bool) *thread {
	a.lend.Lock()
	defer a.lend.Unlock()
	i := len(a.lent) - 1
	if i < 0 {
		return nil
	}
	if !warm {
		for i = 0; i < len(a.lent) && !a.lent[i].sleeps(); i++ {
		}
		if i == len(a.lent) {
			return nil
		}
	} else if !a.lent[i].warm() {
		return nil
	}
	t := a.lent[i]
	a.lent = append(a.lent[:i], a.lent[i+1:]...)
	c := t.owner
	t.owner = nil
	c.detach()
	a.unref()
	return t
}

// swap gives the context, whose thread sleeps, another one that spins; nil if there is none.
func (c *context) swap(t *thread) *thread {
	if !t.sleeps() || !t.as.several.Load() {
		return nil
	}
	u := t.as.steal(true)
	if u == nil {
		return nil
	}
	c.detach()
	t.as.putIdle(t)
	c.take(u)
	return u
}

// sleeps tells whether the thread sleeps, with its state in its slot.
func (t *thread) sleeps() bool { return atomic.LoadUint32(&t.slot.goSeq)&asleep != 0 }

// warm tells whether the thread spins, which its process may forge.
func (t *thread) warm() bool { return !t.sleeps() && atomic.LoadInt32(&t.slot.spin) > 0 }
