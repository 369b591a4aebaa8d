package kernel_test

import (
	"sync/atomic"
	"testing"
	"time"

	"husk/pkg/abi/linux"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/limits"
	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

const (
	eintr  = -int64(unix.EINTR)
	echild = -int64(unix.ECHILD)
	eagain = -int64(unix.EAGAIN)
	sigint = uint64(unix.SIGINT)
)

func TestExitStatus(t *testing.T) {
	w := newWorld(t)
	idle := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	w.expect(w.spawn(func(th *thread) { th.exit(7) }), 7<<8)
	tg := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	tg.Kill()
	w.expect(tg, int32(unix.SIGKILL))
	idle.Kill()
	w.k.WaitAll()
	if n := w.k.TaskCount(); n != 0 {
		t.Fatalf("%d tasks left", n)
	}
	if n, _, _ := w.ct.PIDs(); n != 0 {
		t.Fatalf("%d tasks are charged to the container", n)
	}
}

// inside runs f in a process that is not PID 1.
func (w *world) inside(f func(th *thread, m *mm.MemoryManager)) {
	w.t.Helper()
	idle := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	var tg *kernel.ThreadGroup
	ready := make(chan struct{})
	tg = w.spawn(func(th *thread) {
		<-ready
		f(th, mem(tg))
		th.exit(0)
	})
	close(ready)
	w.expect(tg, 0)
	idle.Kill()
	<-idle.Done()
	w.k.WaitAll()
}

func TestForkAndWait(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		th.must(t, th.sys(unix.SYS_WAIT4, ^uint64(0), 0, 0, 0) == echild, "wait without children")
		for i := range 5 {
			pid := th.fork(func(c *thread) { c.exit(i) })
			th.must(t, pid > 0, "fork", pid)
			got := th.sys(unix.SYS_WAIT4, uint64(pid), fakeData, 0, 0)
			st, _ := m.ReadUint32(fakeData)
			th.must(t, got == pid && st == uint32(i)<<8, "wait", got, st)
		}
		pid := th.fork(func(c *thread) { c.sys(unix.SYS_PAUSE) })
		th.must(t, th.sys(unix.SYS_WAIT4, uint64(pid), fakeData, unix.WNOHANG, 0) == 0, "WNOHANG")
		for _, x := range []struct {
			sig    unix.Signal
			flags  uint64
			status uint32
		}{{unix.SIGSTOP, unix.WUNTRACED, 0x137f}, {unix.SIGCONT, unix.WCONTINUED, 0xffff}, {unix.SIGTERM, 0, 15}} {
			th.sys(unix.SYS_KILL, uint64(pid), uint64(x.sig))
			got := th.sys(unix.SYS_WAIT4, uint64(pid), fakeData, x.flags, 0)
			st, _ := m.ReadUint32(fakeData)
			th.must(t, got == pid && st == x.status, "wait", x.sig, got, st)
		}
	})
}

func TestSignalHandler(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		var got []int
		depth := 0
		h := func(th *thread, sig int) {
			got = append(got, sig)
			if depth++; depth == 1 {
				th.sys(unix.SYS_KILL, uint64(th.sys(unix.SYS_GETPID)), uint64(unix.SIGUSR2)) // masked until the handler returns
				th.must(t, len(got) == 1, "SIGUSR2 inside the handler", got)
			}
		}
		th.onSignal(m, unix.SIGUSR1, 0, linux.Signal(unix.SIGUSR2).Bit(), h)
		th.onSignal(m, unix.SIGUSR2, 0, 0, h)
		pid := uint64(th.sys(unix.SYS_GETPID))
		th.must(t, th.sys(unix.SYS_KILL, pid, uint64(unix.SIGUSR1)) == 0, "kill")
		th.must(t, len(got) == 2 && got[0] == int(unix.SIGUSR1) && got[1] == int(unix.SIGUSR2), "handlers", got)
	})
}

func TestRealTimeSignalsQueue(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		var std, rt atomic.Int32
		th.onSignal(m, unix.SIGUSR1, 0, 0, func(*thread, int) { std.Add(1) })
		th.onSignal(m, 40, 0, 0, func(*thread, int) { rt.Add(1) })
		m.WriteUint64(fakeData, uint64(linux.SetOf(linux.Signal(unix.SIGUSR1), 40)))
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, fakeData, 0, 8)
		pid := uint64(th.sys(unix.SYS_GETPID))
		for range 3 {
			th.sys(unix.SYS_KILL, pid, uint64(unix.SIGUSR1))
			th.sys(unix.SYS_KILL, pid, 40)
		}
		th.must(t, std.Load() == 0 && rt.Load() == 0, "delivered while blocked")
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, fakeData, 0, 8)
		th.must(t, std.Load() == 1 && rt.Load() == 3, "deliveries", std.Load(), rt.Load())
	})
}

// TestInterruptedCalls checks what blocked calls give when a handler runs.
func TestInterruptedCalls(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		pid := uint64(th.sys(unix.SYS_GETPID))
		ran := 0
		poke := func() {
			th.fork(func(c *thread) {
				time.Sleep(10 * time.Millisecond)
				c.sys(unix.SYS_KILL, pid, sigint)
				time.Sleep(30 * time.Millisecond)
				c.exit(3)
			})
		}
		for _, flags := range []uint64{0, linux.SA_RESTART} {
			th.onSignal(m, unix.SIGINT, flags, 0, func(*thread, int) { ran++ })
			ran = 0
			poke()
			got := th.sys(unix.SYS_WAIT4, ^uint64(0), 0, 0, 0)
			if flags == 0 {
				th.must(t, got == eintr, "wait4", got)
				got = th.sys(unix.SYS_WAIT4, ^uint64(0), 0, 0, 0)
			}
			th.must(t, got > 0 && ran == 1, "wait4 with SA_RESTART", got, ran)

			mm.Write(m, fakeData, &unix.Timespec{Sec: 5})
			poke()
			th.must(t, th.sys(unix.SYS_NANOSLEEP, fakeData, fakeData+16) == eintr, "nanosleep")
			rem, _ := mm.Read[unix.Timespec](m, fakeData+16)
			th.must(t, rem.Sec == 4, "remaining", rem)
			th.sys(unix.SYS_WAIT4, ^uint64(0), 0, 0, 0)
			if flags == 0 {
				m.WriteUint32(fakeData+64, 1)
				poke()
				got = th.sys(unix.SYS_FUTEX, fakeData+64, linux.FUTEX_WAIT, 1, 0)
				th.must(t, got == eintr, "futex", got)
				th.sys(unix.SYS_WAIT4, ^uint64(0), 0, 0, 0)
			}
		}
	})
}

func TestFutex(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		const word, word2 = fakeData + 64, fakeData + 128
		var woken atomic.Int32
		for range 4 {
			th.clone(func(c *thread) {
				if c.sys(unix.SYS_FUTEX, word, linux.FUTEX_WAIT|linux.FUTEX_PRIVATE_FLAG, 0, 0) == 0 {
					woken.Add(1)
				}
			})
		}
		n := int64(0)
		for range 1000 {
			if n += th.sys(unix.SYS_FUTEX, word, linux.FUTEX_CMP_REQUEUE|linux.FUTEX_PRIVATE_FLAG, 1, 3, word2, 0); n >= 4 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		th.must(t, n == 4, "requeue", n)
		for woken.Load() < 4 {
			th.sys(unix.SYS_FUTEX, word2, linux.FUTEX_WAKE|linux.FUTEX_PRIVATE_FLAG, 1)
			time.Sleep(time.Millisecond)
		}
		th.must(t, th.sys(unix.SYS_FUTEX, word, linux.FUTEX_WAIT, 5, 0) == eagain, "value differs")
		mm.Write(m, fakeData, &unix.Timespec{Nsec: 1e6})
		th.must(t, th.sys(unix.SYS_FUTEX, word, linux.FUTEX_WAIT, 0, fakeData) == -int64(unix.ETIMEDOUT), "timeout")
	})
}

// TestPILock lets threads increment a counter under a PI lock.
func TestPILock(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		const word = fakeData + 64
		counter, running := 0, atomic.Int32{}
		body := func(c *thread) {
			tid := uint32(c.sys(unix.SYS_GETTID))
			for range 50 {
				if prev, _ := m.CompareAndSwapUint32(word, 0, tid); prev != 0 {
					c.must(t, c.sys(unix.SYS_FUTEX, word, linux.FUTEX_LOCK_PI, 0, 0) == 0, "lock")
				}
				counter++
				time.Sleep(10 * time.Microsecond)
				if prev, _ := m.CompareAndSwapUint32(word, tid, 0); prev != tid {
					c.must(t, c.sys(unix.SYS_FUTEX, word, linux.FUTEX_UNLOCK_PI) == 0, "unlock")
				}
			}
			running.Add(-1)
		}
		for range 3 {
			running.Add(1)
			th.clone(body)
		}
		for running.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		th.must(t, counter == 150, "counter", counter)
		tid := uint32(th.sys(unix.SYS_GETTID))
		m.WriteUint32(word, tid)
		th.must(t, th.sys(unix.SYS_FUTEX, word, linux.FUTEX_LOCK_PI, 0, 0) == -int64(unix.EDEADLK), "own lock")
	})
}

func TestTimers(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		var alarms atomic.Int32
		th.onSignal(m, unix.SIGALRM, 0, 0, func(*thread, int) { alarms.Add(1) })
		mm.Write(m, fakeData, &[4]int64{0, 2000, 0, 2000}) // every 2 ms
		th.sys(unix.SYS_SETITIMER, unix.ITIMER_REAL, fakeData, 0)
		for alarms.Load() < 3 {
			th.must(t, th.sys(unix.SYS_PAUSE) == eintr, "pause")
		}
		mm.Write(m, fakeData, &[4]int64{})
		th.sys(unix.SYS_SETITIMER, unix.ITIMER_REAL, fakeData, 0)

		ev := linux.Sigevent{Value: 77, Signo: int32(unix.SIGALRM), Notify: linux.SIGEV_SIGNAL}
		mm.Write(m, fakeData, &ev)
		th.must(t, th.sys(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, fakeData, fakeData+256) == 0, "timer_create")
		id, _ := m.ReadUint32(fakeData + 256)
		m.WriteUint64(fakeData+300, uint64(linux.Signal(unix.SIGALRM).Bit()))
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, fakeData+300, 0, 8)
		mm.Write(m, fakeData, &[4]int64{0, 1e6, 0, 1e6})
		th.must(t, th.sys(unix.SYS_TIMER_SETTIME, uint64(id), 0, fakeData, 0) == 0, "timer_settime")
		time.Sleep(20 * time.Millisecond)
		got := th.sys(unix.SYS_RT_SIGTIMEDWAIT, fakeData+300, fakeData+400, 0, 8)
		info, _ := mm.Read[linux.SignalInfo](m, fakeData+400)
		th.must(t, got == int64(unix.SIGALRM) && info.Code == linux.SI_TIMER && info.Value() == 77 && info.Overrun() > 5, "timer signal", got, info)
		th.must(t, th.sys(unix.SYS_TIMER_DELETE, uint64(id)) == 0, "timer_delete")
	})
}

// TestLongInterval: a timer whose next expiry is behind the end of time has no further one, and holds up no other.
func TestLongInterval(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		var alarms atomic.Int32
		th.onSignal(m, unix.SIGALRM, 0, 0, func(*thread, int) { alarms.Add(1) })
		ev := linux.Sigevent{Signo: int32(unix.SIGALRM), Notify: linux.SIGEV_SIGNAL}
		mm.Write(m, fakeData, &ev)
		th.must(t, th.sys(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, fakeData, fakeData+256) == 0, "timer_create")
		id, _ := m.ReadUint32(fakeData + 256)
		mm.Write(m, fakeData, &[4]int64{1<<63 - 1, 0, 0, 1e6})
		th.must(t, th.sys(unix.SYS_TIMER_SETTIME, uint64(id), 0, fakeData, 0) == 0, "timer_settime")
		th.must(t, th.sys(unix.SYS_PAUSE) == eintr, "pause")
		done := make(chan struct{})
		timer := clock.Timer{F: func() { close(done) }}
		w.k.Timers().Set(&timer, clock.Monotonic()+5e6)
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("another timer does not fire")
		}
		th.sys(unix.SYS_TIMER_GETTIME, uint64(id), fakeData)
		left, _ := mm.Read[[4]int64](m, fakeData)
		th.must(t, alarms.Load() == 1 && left[2] > 1e9, "expiries", alarms.Load(), left)
		th.sys(unix.SYS_TIMER_DELETE, uint64(id))
	})
}

// TestManyTimers: the end of a process with many expired timers does not take long.
func TestManyTimers(t *testing.T) {
	const timers = 30000
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		const sig = 40
		var start time.Time
		m.WriteUint64(fakeData+300, uint64(linux.Signal(sig).Bit()))
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, fakeData+300, 0, 8)
		mm.Write(m, fakeData, &linux.Sigevent{Signo: sig, Notify: linux.SIGEV_SIGNAL})
		mm.Write(m, fakeData+512, &[4]int64{0, 0, 0, 1})
		pid := th.fork(func(c *thread) {
			for id := range timers { // as they are numbered
				c.sys(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, fakeData, fakeData+256)
				c.sys(unix.SYS_TIMER_SETTIME, uint64(id), 0, fakeData+512, 0)
			}
			time.Sleep(200 * time.Millisecond)
			start = time.Now()
			c.exit(0)
		})
		th.sys(unix.SYS_WAIT4, uint64(pid), fakeData, 0, 0)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the end took %v", d)
		}
	})
}

// TestCPULimit: a process that seems to have passed the soft and the hard limit at once gets SIGXCPU first, and only once.
func TestCPULimit(t *testing.T) {
	w := newWorld(t)
	idle := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	for _, c := range []struct {
		soft, hard uint64
		ignore     bool
		used       []int64 // seconds, one after the other
		status     unix.Signal
	}{
		{10, 50, false, []int64{60}, unix.SIGXCPU},
		{50, 50, false, []int64{60}, unix.SIGKILL},
		{10, 50, true, []int64{60, 1}, unix.SIGKILL},
	} {
		var tg *kernel.ThreadGroup
		ready, set := make(chan struct{}), make(chan struct{})
		tg = w.spawn(func(th *thread) {
			<-ready
			if c.ignore {
				th.onSignal(mem(tg), unix.SIGXCPU, 0, 0, func(*thread, int) {})
			}
			close(set)
			for {
				th.sys(unix.SYS_PAUSE)
			}
		})
		close(ready)
		<-set
		tg.Limits().Replace(unix.RLIMIT_CPU, limits.Limit{Cur: c.soft, Max: c.hard}, true)
		for _, s := range c.used {
			tg.UseCPU(s * 1e9)
			tg.LimitChanged() // which changes nothing
		}
		w.expect(tg, int32(c.status))
	}
	idle.Kill()
	<-idle.Done()
	w.k.WaitAll()
}

// TestThreads: a signal for the process goes to a thread that does not block it; exit_group ends all.
func TestThreads(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		m.WriteUint64(fakeData, ^uint64(0))
		var ready atomic.Int32
		for range 3 {
			th.clone(func(c *thread) {
				ready.Add(1)
				for {
					c.check()
					time.Sleep(100 * time.Microsecond)
				}
			})
		}
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, fakeData, 0, 8)
		var by atomic.Int64
		th.onSignal(m, unix.SIGUSR1, 0, 0, func(c *thread, _ int) { by.Store(c.sys(unix.SYS_GETTID)) })
		th.sys(unix.SYS_KILL, uint64(th.sys(unix.SYS_GETPID)), uint64(unix.SIGUSR1))
		for by.Load() == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		th.must(t, by.Load() != th.sys(unix.SYS_GETTID), "handled by the thread that blocks the signal")
	})
}

// TestFatalSignalInOtherThread: a signal that the main thread blocks ends the process by another thread.
func TestFatalSignalInOtherThread(t *testing.T) {
	w := newWorld(t)
	idle := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	var tg *kernel.ThreadGroup
	ready := make(chan struct{})
	tg = w.spawn(func(th *thread) {
		<-ready
		mem(tg).WriteUint64(fakeData, ^uint64(0))
		th.clone(func(c *thread) { c.sys(unix.SYS_PAUSE) })
		th.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, fakeData, 0, 8)
		th.sys(unix.SYS_KILL, uint64(th.sys(unix.SYS_GETPID)), uint64(unix.SIGTERM))
		th.sys(unix.SYS_PAUSE)
	})
	close(ready)
	w.expect(tg, int32(unix.SIGTERM))
	idle.Kill()
	w.k.WaitAll()
}

// TestInitDeath: the end of PID 1 ends everybody in its namespace.
func TestInitDeath(t *testing.T) {
	w := newWorld(t)
	ready := make(chan struct{})
	in := w.spawn(func(th *thread) {
		<-ready
		for range 3 {
			th.fork(func(c *thread) {
				c.fork(func(c *thread) { c.sys(unix.SYS_PAUSE) })
				c.sys(unix.SYS_PAUSE)
			})
		}
		th.sys(unix.SYS_KILL, 1, uint64(unix.SIGTERM)) // without a handler PID 1 ignores it
		time.Sleep(5 * time.Millisecond)
		th.exit(4)
	})
	other := w.spawn(func(th *thread) { th.sys(unix.SYS_PAUSE) })
	close(ready)
	w.expect(in, 4<<8)
	w.expect(other, int32(unix.SIGKILL))
	w.k.WaitAll()
	if n := w.k.TaskCount(); n != 0 {
		t.Fatalf("%d tasks left", n)
	}
}

// TestHotPathsAllocateNothing covers dispatch, the run loop and futex wakes.
func TestHotPathsAllocateNothing(t *testing.T) {
	w := newWorld(t)
	w.inside(func(th *thread, m *mm.MemoryManager) {
		const word = fakeData + 64
		for _, x := range []struct {
			name string
			f    func()
		}{
			{"getpid", func() { th.sys(unix.SYS_GETPID) }},
			{"futex wake", func() { th.sys(unix.SYS_FUTEX, word, linux.FUTEX_WAKE, 1) }},
			{"sigprocmask", func() { th.sys(unix.SYS_RT_SIGPROCMASK, 0, 0, fakeData, 8) }},
		} {
			if n := testing.AllocsPerRun(200, x.f); n >= 1 && !raceEnabled {
				t.Errorf("%s: %v allocations", x.name, n)
			}
		}
	})
}

// A process that is killed before it starts ends all the same, without running.
func TestKilledBeforeStart(t *testing.T) {
	w := newWorld(t)
	tg := w.create(func(th *thread) { t.Error("it runs") })
	tg.Kill()
	w.expect(tg, int32(unix.SIGKILL))
	w.k.StartProcess(tg)
	if n, _, _ := w.ct.PIDs(); n != 0 {
		t.Errorf("%d tasks are left", n)
	}
}
