package platformtest

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/platform"
)

// testParallel: two contexts of an address space hand a word to and fro without any system call.
func testParallel(e *env) {
	s := e.newSpace(iWaitStore...)
	for i := range uint64(5) {
		word(s.data).Store(0)
		a, ra := e.newContext(), start()
		b, rb := e.newContext(), start()
		ra.Rsi, ra.Rdx = 1, 2 // waits for 1, stores 2
		rb.Rsi, rb.Rdx = 2, 3
		chA, chB := goSwitch(a, s, ra), goSwitch(b, s, rb)
		time.Sleep(time.Duration(i) * time.Millisecond)
		word(s.data).Store(1)
		for _, ch := range []<-chan result{chA, chB} {
			if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventSyscall {
				e.Fatalf("%+v", res)
			}
		}
		if v := word(s.data).Load(); v != 3 {
			e.Fatalf("word is %d, want 3", v)
		}
	}
}

func testInterruptSpinning(e *env) {
	s, c, r := e.newSpace(iCount...), e.newContext(), start()
	for range 50 {
		before := word(s.data).Load()
		ch := goSwitch(c, s, r)
		// The second call below may come when Switch has returned already: then the next one returns at once.
		e.eventually("counting", func() bool { return word(s.data).Load() > before || len(ch) > 0 })
		c.Interrupt()
		c.Interrupt()
		if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventInterrupt {
			e.Fatalf("%+v", res)
		}
		if r.Rip != codeAddr && r.Rip != codeAddr+3 {
			e.Fatalf("rip %#x", r.Rip)
		}
	}
}

func testInterruptBefore(e *env) {
	s, c, r := e.newSpace(cat(iSyscall, iSpin)...), e.newContext(), start()
	r.Rax = 39
	want := *r
	c.Interrupt()
	c.Interrupt()
	if ev := e.run(c, s, r); ev.Kind != platform.EventInterrupt {
		e.Fatalf("%+v", ev)
	}
	if r.Rip != want.Rip || r.Rax != want.Rax {
		e.Errorf("rip %#x, rax %d", r.Rip, r.Rax)
	}
	// They coalesced: the next one runs.
	e.wantSyscall(e.run(c, s, r), r, 39)
}

// testInterruptStorm interrupts from many goroutines; none may be lost.
func testInterruptStorm(e *env) {
	s, c, r := e.newSpace(iSpin...), e.newContext(), start()
	const n, rounds = 4, 200
	for range rounds {
		var wg sync.WaitGroup
		for range n {
			wg.Add(1)
			go func() {
				defer wg.Done()
				c.Interrupt()
			}()
		}
		ch := goSwitch(c, s, r)
		if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventInterrupt {
			e.Fatalf("%+v", res)
		}
		wg.Wait()
	}
	// One may be left over, no more.
	c.Interrupt()
	e.run(c, s, r)
	r.Rax = 39
	copy(s.code, iSyscall)
	e.wantSyscall(e.run(c, s, r), r, 39)
}

// testInterruptSyscalls interrupts a program that makes system calls: every call is seen once.
func testInterruptSyscalls(e *env) {
	s, c, r := e.newSpace(cat(iInc, iSyscall, jmpBack(5))...), e.newContext(), start()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !stop.Load() {
			c.Interrupt()
			time.Sleep(20 * time.Microsecond)
		}
	}()
	calls, interrupts := uint64(0), 0
	for calls < 5000 {
		switch ev := e.run(c, s, r); ev.Kind {
		case platform.EventSyscall:
			calls++
			if v := word(s.data).Load(); v != calls {
				e.Fatalf("call %d seen after %d increments", calls, v)
			}
			r.Rax = 39
		case platform.EventInterrupt:
			interrupts++
		default:
			e.Fatalf("%+v", ev)
		}
	}
	stop.Store(true)
	wg.Wait()
	if interrupts == 0 {
		e.Error("no interrupt came")
	}
}

// children counts the child processes of this process.
func children(e *env) int {
	tasks, err := os.ReadDir("/proc/self/task")
	e.must(err)
	n := 0
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		n += len(strings.Fields(string(b)))
	}
	return n
}

func openFDs(e *env) int {
	fds, err := os.ReadDir("/proc/self/fd")
	e.must(err)
	return len(fds)
}

func testManySpaces(e *env) {
	const n = 200
	once := func() {
		as, err := e.p.NewAddressSpace()
		e.must(err)
		defer as.Release()
		off := e.alloc(1)
		copy(e.mem[off:], iSyscall)
		e.must(as.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read | platform.Exec, FD: e.fd, Addr: codeAddr, Length: 4096, Offset: off}}))
		c, r := e.p.NewContext(), start()
		defer c.Release()
		r.Rax = 39
		e.wantSyscall(e.run(c, as, r), r, 39)
	}
	for range 10 {
		once()
	}
	procs, fds := children(e), openFDs(e)
	for range n {
		once()
	}
	e.eventually("the end of the stubs", func() bool { return children(e) <= procs+8 })
	if now := openFDs(e); now > fds+4 {
		e.Errorf("%d file descriptors before, %d after", fds, now)
	}
	// And many at a time.
	var all []platform.AddressSpace
	for range n {
		as, err := e.p.NewAddressSpace()
		e.must(err)
		all = append(all, as)
	}
	for _, as := range all {
		as.Release()
	}
	e.eventually("the end of the stubs", func() bool { return children(e) <= procs+8 })
}

// testSpacesInTurn visits many address spaces from one OS thread, and comes back to each.
func testSpacesInTurn(e *env) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const n = 100
	var spaces [n]*space
	var ctxs [n]platform.Context
	for i := range n {
		spaces[i], ctxs[i] = e.newSpace(cat(iSyscall, jmpBack(2))...), e.newContext()
	}
	for range 2 {
		for i := range n {
			r := start()
			r.Rax = uint64(i)
			e.wantSyscall(e.run(ctxs[i], spaces[i], r), r, uint64(i))
		}
	}
}

func testReleaseWhileRunning(e *env) {
	// Many rounds: the race of the release with the start of the threads has several windows.
	rounds := 100
	if testing.Short() {
		rounds = 30
	}
	for i := range rounds {
		as, err := e.p.NewAddressSpace()
		e.must(err)
		s := e.fill(as, iSpin)
		var chs []<-chan result
		for range 3 {
			chs = append(chs, goSwitch(e.newContext(), s, start()))
		}
		time.Sleep(time.Duration(i%30) * 30 * time.Microsecond)
		as.Release()
		for _, ch := range chs {
			if res := e.await(ch); res.err == nil {
				e.Fatalf("%+v", res)
			}
		}
	}
}

func testSwitchAfterRelease(e *env) {
	as, err := e.p.NewAddressSpace()
	e.must(err)
	s, c := e.fill(as, iSyscall), e.newContext()
	as.Release()
	if _, err := c.Switch(s.AddressSpace, start()); err == nil {
		e.Error("Switch succeeded")
	}
	// The context is good for another one.
	s, r := e.newSpace(iSyscall...), start()
	r.Rax = 39
	e.wantSyscall(e.run(c, s, r), r, 39)
}

// testCrowd runs many more contexts than there are processors; all make progress and all can be interrupted.
func testCrowd(e *env, n int) {
	if n == 0 {
		n = 200
	}
	if testing.Short() {
		n = min(n, 40)
	}
	s := e.newSpace(iCount...)
	off := e.alloc((n*8 + 4095) / 4096)
	e.must(s.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.ReadWrite, FD: e.fd, Addr: noAddr, Length: uint64((n*8+4095)/4096) * 4096, Offset: off}}))
	var ctxs []platform.Context
	var chs []<-chan result
	for i := range n {
		c, r := e.newContext(), start()
		r.Rdi = noAddr + uint64(i)*8
		ctxs, chs = append(ctxs, c), append(chs, goSwitch(c, s, r))
	}
	for i := range n {
		e.eventually("progress of context "+strconv.Itoa(i), func() bool { return word(e.mem[off+uint64(i)*8:]).Load() > 0 })
	}
	for _, c := range ctxs {
		c.Interrupt()
	}
	for _, ch := range chs {
		if res := e.await(ch); res.err != nil || res.ev.Kind != platform.EventInterrupt {
			e.Fatalf("%+v", res)
		}
	}
}

func testKilled(e *env, stub func(platform.AddressSpace) int) {
	if stub == nil {
		e.Skip("no stub to kill")
	}
	s, c, r := e.newSpace(iSyscall...), e.newContext(), start()
	e.run(c, s, r)
	e.must(unix.Kill(stub(s.AddressSpace), unix.SIGKILL))
	r = start()
	if _, err := c.Switch(s.AddressSpace, r); err == nil {
		// The signal may have come later than the stop.
		r = start()
		if _, err := c.Switch(s.AddressSpace, r); err == nil {
			e.Error("Switch succeeded")
		}
	}
	if err := s.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: 4096}}); err == nil {
		e.Error("Apply succeeded")
	}
	s, r = e.newSpace(iSyscall...), start()
	r.Rax = 39
	e.wantSyscall(e.run(c, s, r), r, 39)
}

func testKilledRunning(e *env, stub func(platform.AddressSpace) int) {
	if stub == nil {
		e.Skip("no stub to kill")
	}
	s, r := e.newSpace(iSpin...), start()
	a := goSwitch(e.newContext(), s, r)
	b := goSwitch(e.newContext(), s, start())
	time.Sleep(time.Millisecond)
	// Signals from outside are not for the application.
	pid := stub(s.AddressSpace)
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGTERM, unix.SIGSTOP, unix.SIGCONT, unix.SIGSEGV, unix.SIGTRAP} {
		e.must(unix.Kill(pid, sig))
	}
	select {
	case res := <-a:
		e.Fatalf("a signal from outside ended Switch: %+v %v", res.ev, res.err)
	case res := <-b:
		e.Fatalf("a signal from outside ended Switch: %+v %v", res.ev, res.err)
	case <-time.After(20 * time.Millisecond):
	}
	e.must(unix.Kill(pid, unix.SIGKILL))
	for _, ch := range []<-chan result{a, b} {
		if res := e.await(ch); res.err == nil {
			e.Errorf("%+v", res)
		}
	}
}

// testKilledAnytime kills the stub at any moment of starting threads, changing memory and forking, as the host does when
// memory runs out. Nothing may hang.
func testKilledAnytime(e *env, stub func(platform.AddressSpace) int) {
	if stub == nil {
		e.Skip("no stub to kill")
	}
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	for i := range rounds {
		as, err := e.p.NewAddressSpace()
		e.must(err)
		s := e.fill(as, iSpin)
		chs := []<-chan result{goSwitch(e.newContext(), s, start()), goSwitch(e.newContext(), s, start())}
		var wg sync.WaitGroup
		for range 2 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				op := []platform.MapOp{{Op: platform.OpMap, Perms: platform.Read, FD: e.fd, Addr: noAddr, Length: 4096}}
				for as.Apply(op) == nil {
					if f, ok := as.(platform.Forker); ok {
						if child, err := f.Fork(nil, nil); err == nil {
							child.Release()
						}
					}
				}
			}()
		}
		time.Sleep(time.Duration(i) * 50 * time.Microsecond)
		e.must(unix.Kill(stub(as), unix.SIGKILL))
		for _, ch := range chs {
			if res := e.await(ch); res.err == nil {
				e.Errorf("%+v", res)
			}
		}
		wg.Wait()
		as.Release()
	}
}
