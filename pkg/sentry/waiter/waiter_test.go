package waiter

import "testing"

func TestNotify(t *testing.T) {
	var q Queue
	var in, out Signal
	in.Init()
	out.Init()
	var ein, eout Entry
	ein.Init(&in, EventIn)
	eout.Init(&out, EventOut)
	q.EventRegister(&ein)
	q.EventRegister(&eout)
	q.Notify(EventIn)
	if len(in.C) != 1 || len(out.C) != 0 {
		t.Fatalf("after EventIn: in %d, out %d tokens", len(in.C), len(out.C))
	}
	in.Drain()
	q.EventUnregister(&ein)
	q.EventUnregister(&ein)
	q.Notify(EventHUp)
	if len(in.C) != 0 || len(out.C) != 1 {
		t.Fatalf("after EventHUp: in %d, out %d tokens", len(in.C), len(out.C))
	}
	q.EventUnregister(&eout)
	if !q.Empty() {
		t.Fatal("queue not empty")
	}
}

func TestNotifyAllocatesNothing(t *testing.T) {
	var q Queue
	var s Signal
	s.Init()
	var e Entry
	e.Init(&s, EventIn)
	if n := testing.AllocsPerRun(100, func() {
		q.EventRegister(&e)
		q.Notify(EventIn)
		s.Drain()
		q.EventUnregister(&e)
	}); n != 0 {
		t.Fatalf("%v allocations per cycle", n)
	}
}

type counter struct{ n int }

func (c *counter) NotifyEvent(EventMask) { c.n++ }

// Only wake-ups of other goroutines are put off: what computes readiness hears at once.
func TestNotifyLater(t *testing.T) {
	var q Queue
	var own Signal
	own.Init()
	own.Linger()
	var others [6]Signal
	var entries [8]Entry
	var c counter
	for i := range others {
		others[i].Init()
		entries[i].Init(&others[i], EventIn)
		q.EventRegister(&entries[i])
	}
	entries[6].Init(&own, EventIn)
	entries[7].Init(&c, EventIn)
	q.EventRegister(&entries[6])
	q.EventRegister(&entries[7])
	tokens := func() (n int) {
		for i := range others {
			n += len(others[i].C)
		}
		return n
	}
	q.NotifyLater(&own, EventIn)
	if c.n != 1 || len(own.C) != 1 || tokens() == len(others) {
		t.Fatalf("%d notifications, %d own tokens, %d of others", c.n, len(own.C), tokens())
	}
	own.Flush()
	if tokens() != len(others) || own.Late() {
		t.Fatalf("%d tokens after Flush", tokens())
	}
	for i := range others {
		others[i].Drain()
	}
	own.WakeLater(&others[0])
	own.Hurry()
	own.WakeLater(&others[1])
	q.NotifyLater(&own, EventIn)
	if tokens() != len(others) {
		t.Fatalf("%d tokens after Hurry", tokens())
	}
}
