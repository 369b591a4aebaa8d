package platformtest

import (
	"sync"
	"time"

	"husk/pkg/arch"
	"husk/pkg/platform"
)

func testMapBatch(e *env) {
	const n = 500
	s, c := e.newSpace(cat(iLoad, iSyscall)...), e.newContext()
	off := e.alloc(n)
	var ops []platform.MapOp
	for i := range uint64(n) {
		copy(e.mem[off+i*arch.PageSize:], le64(1000+i))
		ops = append(ops, platform.MapOp{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr + i*2*arch.PageSize,
			Length: arch.PageSize, Offset: off + i*arch.PageSize, Populate: i%2 == 0})
	}
	e.must(s.Apply(ops))
	at := func(i uint64) (platform.Event, *arch.Registers) {
		r := start()
		r.Rdi = noAddr + i*2*arch.PageSize
		return e.run(c, s, r), r
	}
	for i := range uint64(n) {
		ev, r := at(i)
		e.wantSyscall(ev, r, 1000+i)
	}
	// Unmap every other page; map, unmap and map one again in a list.
	ops = ops[:0]
	for i := uint64(0); i < n; i += 2 {
		ops = append(ops, platform.MapOp{Op: platform.OpUnmap, Addr: noAddr + i*2*arch.PageSize, Length: arch.PageSize})
	}
	again := platform.MapOp{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: arch.PageSize, Offset: off}
	ops = append(ops, again, ops[0], again)
	e.must(s.Apply(ops))
	for i := range uint64(n) {
		ev, r := at(i)
		if i == 0 || i%2 == 1 {
			e.wantSyscall(ev, r, 1000+i)
		} else if ev.Kind != platform.EventFault || ev.Addr != r.Rdi {
			e.Fatalf("page %d: %+v", i, ev)
		}
	}
	e.must(s.Apply(nil))
	// Unmapping the whole range, holes and all, is valid.
	lo, hi := e.p.UserRange()
	e.must(s.Apply([]platform.MapOp{{Op: platform.OpUnmap, Addr: lo, Length: hi - lo}}))
	if ev, r := at(1); ev.Kind != platform.EventFault || ev.Addr != codeAddr {
		e.Errorf("%+v, rip %#x", ev, r.Rip)
	}
}

func testMapErrors(e *env) {
	s, c, r := e.newSpace(iSyscall...), e.newContext(), start()
	_, hi := e.p.UserRange()
	off := e.alloc(1)
	for _, op := range []platform.MapOp{
		{Op: platform.OpMap, Perms: platform.Read, FD: 1 << 20, Addr: noAddr, Length: arch.PageSize, Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: hi, Length: arch.PageSize, Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: hi - arch.PageSize, Length: 2 * arch.PageSize, Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: ^uint64(arch.PageSize - 1), Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr + 1, Length: arch.PageSize, Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: 0, Offset: off},
		{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: 0, Length: arch.PageSize, Offset: off},
		{Op: platform.OpProtect, Perms: platform.Read, Addr: noAddr, Length: arch.PageSize},
		{Op: platform.OpUnmap, Addr: hi, Length: arch.PageSize},
		{Op: 99, Addr: noAddr, Length: arch.PageSize},
	} {
		if err := s.Apply([]platform.MapOp{op}); err == nil {
			e.Errorf("%+v succeeded", op)
		}
	}
	r.Rax = 39
	e.wantSyscall(e.run(c, s, r), r, 39)
}

// testUnmapWhileRunning takes a page away from a thread that keeps reading it.
func testUnmapWhileRunning(e *env) {
	s, c := e.newSpace(iReadLoop...), e.newContext()
	off := e.alloc(1)
	for range 20 {
		e.must(s.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: arch.PageSize, Offset: off}}))
		r := start()
		r.Rdi = noAddr
		ch := goSwitch(c, s, r)
		time.Sleep(time.Millisecond)
		e.must(s.Apply([]platform.MapOp{{Op: platform.OpUnmap, Addr: noAddr, Length: arch.PageSize}}))
		res := e.await(ch)
		if res.err != nil || res.ev.Kind != platform.EventFault || res.ev.Addr != noAddr {
			e.Fatalf("%+v", res)
		}
	}
}

// testProtectWhileRunning: once Apply returned, no write comes through.
func testProtectWhileRunning(e *env) {
	s, c := e.newSpace(iCount...), e.newContext()
	w := word(s.data)
	for i := range 20 {
		e.must(s.Apply([]platform.MapOp{{Op: platform.OpProtect, Perms: platform.ReadWrite, Addr: dataAddr, Length: arch.PageSize}}))
		before := w.Load()
		r := start()
		ch := goSwitch(c, s, r)
		e.eventually("counting", func() bool { return w.Load() > before+1000 })
		e.must(s.Apply([]platform.MapOp{{Op: platform.OpProtect, Perms: platform.Read, Addr: dataAddr, Length: arch.PageSize}}))
		v := w.Load()
		time.Sleep(2 * time.Millisecond)
		if w.Load() != v {
			e.Fatalf("round %d: the program wrote after Apply", i)
		}
		if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventFault || res.ev.Addr != dataAddr || res.ev.Code != 2 {
			e.Fatalf("%+v", res)
		}
	}
}

// testMapFromOtherGoroutines changes an address space from many goroutines while it runs.
func testMapFromOtherGoroutines(e *env) {
	s, c, r := e.newSpace(iCount...), e.newContext(), start()
	ch := goSwitch(c, s, r)
	off := e.alloc(1)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				addr := noAddr + g<<20
				if err := s.Apply([]platform.MapOp{
					{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: addr, Length: arch.PageSize, Offset: off},
					{Op: platform.OpProtect, Perms: platform.ReadWrite, Addr: addr, Length: arch.PageSize},
					{Op: platform.OpUnmap, Addr: addr, Length: arch.PageSize},
				}); err != nil {
					e.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	v := word(s.data).Load()
	e.eventually("progress", func() bool { return word(s.data).Load() > v })
	c.Interrupt()
	if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventInterrupt {
		e.Errorf("%+v", res)
	}
}

func testFork(e *env) {
	s, c, r := e.newSpace(cat(iLoad, iSyscall, iStore, iSyscall)...), e.newContext(), start()
	f, ok := s.AddressSpace.(platform.Forker)
	if !ok {
		e.Skip("no Forker")
	}
	copy(s.data, le64(7))
	e.wantSyscall(e.run(c, s, r), r, 7)
	// While another thread runs, and from another goroutine than the one that made the parent.
	spin := e.newContext()
	copy(s.code[64:], iSpin)
	rs := start()
	rs.Rip = codeAddr + 64
	ch := goSwitch(spin, s, rs)
	time.Sleep(time.Millisecond)
	for i := range 10 {
		var child platform.AddressSpace
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			child, err = f.Fork(nil, nil)
		}()
		<-done
		e.must(err)
		cc, rc := e.newContext(), start()
		e.wantSyscall(e.run(cc, child, rc), rc, uint64(7+i))
		// The copy has mappings of its own: protecting one leaves the other alone.
		e.must(child.Apply([]platform.MapOp{{Op: platform.OpProtect, Perms: platform.Read, Addr: dataAddr, Length: arch.PageSize}}))
		if ev := e.run(cc, child, rc); ev.Kind != platform.EventFault || ev.Addr != dataAddr || ev.Code != 2 {
			e.Fatalf("%+v", ev)
		}
		r.Rip, r.Rax = codeAddr+5, uint64(8+i)
		e.wantSyscall(e.run(c, s, r), r, uint64(8+i))
		// A copy of the copy.
		if i == 0 {
			grand, err := child.(platform.Forker).Fork(nil, nil)
			e.must(err)
			rg := start()
			e.wantSyscall(e.run(cc, grand, rg), rg, 8)
			grand.Release()
		}
		child.Release()
	}
	spin.Interrupt()
	e.await(ch)
}

// testForkChanges: what own changes is so in both, and the changes of the copy are in the copy only, however many there are.
func testForkChanges(e *env) {
	const n = 300
	s, c, r := e.newSpace(cat(iLoad, iSyscall)...), e.newContext(), start()
	f, ok := s.AddressSpace.(platform.Forker)
	if !ok {
		e.Skip("no Forker")
	}
	off := e.alloc(n)
	var own, changes []platform.MapOp
	for i := range uint64(n) {
		copy(e.mem[off+i*arch.PageSize:], le64(i))
		op := platform.MapOp{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr + i*2*arch.PageSize, Length: arch.PageSize,
			Offset: off + i*arch.PageSize}
		own = append(own, op)
		op.Offset = off + (n-1-i)*arch.PageSize
		changes = append(changes, op)
	}
	copy(s.data, le64(7))
	e.wantSyscall(e.run(c, s, r), r, 7)
	for _, k := range []int{n, 50, 0} {
		child, err := f.Fork(own[:k], changes[:k])
		e.must(err)
		for i := range uint64(k) {
			r = start()
			r.Rdi = own[i].Addr
			e.wantSyscall(e.run(c, s, r), r, i)
			cc := e.p.NewContext()
			r = start()
			r.Rdi = own[i].Addr
			e.wantSyscall(e.run(cc, child, r), r, n-1-i)
			cc.Release()
		}
		child.Release()
	}
	if _, err := f.Fork(nil, []platform.MapOp{{Op: platform.OpUnmap, Addr: 1, Length: arch.PageSize}}); err == nil {
		e.Error("no error for an invalid change")
	}
}
