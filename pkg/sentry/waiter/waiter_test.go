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
