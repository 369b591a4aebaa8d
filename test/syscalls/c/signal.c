// sigaction(2), kill(2), sigprocmask(2), sigaltstack(2), real-time signals, restart of system calls.
#include "husk.h"
#include <pthread.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <immintrin.h>

static volatile sig_atomic_t got, count;
static siginfo_t info;

static void on(int s) { got = s; count++; }
static void on_info(int s, siginfo_t *i, void *u)
{
	got = s;
	count++;
	info = *i;
}
static void handle(int s, void (*f)(int), int flags)
{
	struct sigaction a = {.sa_handler = f, .sa_flags = flags};
	OK(sigaction(s, &a, 0));
}
static void handle_info(int s, void (*f)(int, siginfo_t *, void *), int flags)
{
	struct sigaction a = {.sa_sigaction = f, .sa_flags = flags | SA_SIGINFO};
	OK(sigaction(s, &a, 0));
}

CASE(raise_runs_handler)
{
	handle(SIGUSR1, on, 0);
	OK(raise(SIGUSR1));
	EQ(got, SIGUSR1);
}

CASE(kill_errors)
{
	ERR(kill(getpid(), 65), EINVAL);
	ERR(kill(getpid(), -1), EINVAL);
	ERR(kill(999999, 0), ESRCH);
	OK(kill(getpid(), 0));
	struct sigaction a = {.sa_handler = on};
	ERR(sigaction(SIGKILL, &a, 0), EINVAL);
	ERR(sigaction(SIGSTOP, &a, 0), EINVAL);
	ERR(syscall(SYS_rt_sigaction, 1, 0, 0, 4), EINVAL);
}

CASE(siginfo_of_kill)
{
	handle_info(SIGUSR1, on_info, 0);
	OK(kill(getpid(), SIGUSR1));
	EQ(info.si_code, SI_USER);
	EQ(info.si_pid, getpid());
	EQ(info.si_uid, getuid());
}

CASE(sigqueue_value)
{
	handle_info(SIGRTMIN, on_info, 0);
	OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 1234}));
	EQ(info.si_code, SI_QUEUE);
	EQ(info.si_value.sival_int, 1234);
}

static int order[10], norder;
static void on_order(int s, siginfo_t *i, void *u) { order[norder++] = i->si_value.sival_int; }

CASE(realtime_signals_queue_in_order)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGRTMIN + 1);
	OK(sigprocmask(SIG_BLOCK, &m, 0));
	handle_info(SIGRTMIN + 1, on_order, 0);
	for (int i = 0; i < 5; i++)
		OK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
	OK(sigprocmask(SIG_UNBLOCK, &m, 0));
	EQ(norder, 5);
	for (int i = 0; i < 5; i++)
		EQ(order[i], i);
}

CASE(standard_signals_coalesce)
{
	sigset_t m, p;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, 0));
	handle(SIGUSR1, on, 0);
	raise(SIGUSR1);
	raise(SIGUSR1);
	OK(sigpending(&p));
	CHECK(sigismember(&p, SIGUSR1));
	EQ(count, 0);
	OK(sigprocmask(SIG_UNBLOCK, &m, 0));
	EQ(count, 1);
}

static sigset_t mask_in_handler;
static void on_mask(int s) { sigprocmask(SIG_BLOCK, 0, &mask_in_handler); }

CASE(mask_in_handler)
{
	struct sigaction a = {.sa_handler = on_mask};
	sigaddset(&a.sa_mask, SIGUSR2);
	OK(sigaction(SIGUSR1, &a, 0));
	raise(SIGUSR1);
	CHECK(sigismember(&mask_in_handler, SIGUSR1) && sigismember(&mask_in_handler, SIGUSR2));
	sigset_t m;
	sigprocmask(SIG_BLOCK, 0, &m);
	CHECK(!sigismember(&m, SIGUSR1) && !sigismember(&m, SIGUSR2));
	a.sa_flags = SA_NODEFER;
	sigemptyset(&a.sa_mask);
	OK(sigaction(SIGUSR1, &a, 0));
	raise(SIGUSR1);
	CHECK(!sigismember(&mask_in_handler, SIGUSR1));
}

CASE(resethand)
{
	handle(SIGUSR1, on, SA_RESETHAND);
	raise(SIGUSR1);
	struct sigaction a;
	OK(sigaction(SIGUSR1, 0, &a));
	CHECK(a.sa_handler == SIG_DFL);
}

static char *alt_lo, *alt_hi;
static volatile int on_alt;
static void on_altstack(int s)
{
	char c;
	on_alt = &c >= alt_lo && &c < alt_hi;
}

CASE(altstack)
{
	size_t n = 65536;
	alt_lo = malloc(n);
	alt_hi = alt_lo + n;
	stack_t st = {.ss_sp = alt_lo, .ss_size = n}, old;
	OK(sigaltstack(&st, 0));
	handle(SIGUSR1, on_altstack, SA_ONSTACK);
	raise(SIGUSR1);
	EQ(on_alt, 1);
	handle(SIGUSR1, on_altstack, 0);
	raise(SIGUSR1);
	EQ(on_alt, 0);
	OK(sigaltstack(0, &old));
	CHECK(old.ss_sp == alt_lo && old.ss_size == n && old.ss_flags == 0);
	st.ss_size = 100;
	ERR(sigaltstack(&st, 0), ENOMEM);
	st.ss_flags = 0x55;
	ERR(sigaltstack(&st, 0), EINVAL);
}

static sigjmp_buf env;
static void on_fault(int s, siginfo_t *i, void *u)
{
	info = *i;
	siglongjmp(env, s);
}

CASE(segv_maperr)
{
	handle_info(SIGSEGV, on_fault, 0);
	char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p, 4096);
	if (sigsetjmp(env, 1) == 0) {
		*(volatile char *)p = 1;
		FAIL("no fault");
	}
	EQ(info.si_code, SEGV_MAPERR);
	CHECK(info.si_addr == p);
}

CASE(segv_accerr)
{
	handle_info(SIGSEGV, on_fault, 0);
	char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p[7] == 0);
	if (sigsetjmp(env, 1) == 0) {
		p[7] = 1;
		FAIL("no fault");
	}
	EQ(info.si_code, SEGV_ACCERR);
	CHECK(info.si_addr == p + 7);
}

CASE(bus_beyond_end_of_file)
{
	tmpdir();
	int fd = OK(open("f", O_CREAT | O_RDWR, 0600));
	OK(ftruncate(fd, 100));
	char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	p[50] = 1;
	handle_info(SIGBUS, on_fault, 0);
	if (sigsetjmp(env, 1) == 0) {
		p[5000] = 1;
		FAIL("no fault");
	}
	EQ(info.si_code, BUS_ADRERR);
}

CASE(fpe_and_ill)
{
	handle_info(SIGFPE, on_fault, 0);
	handle_info(SIGILL, on_fault, 0);
	if (sigsetjmp(env, 1) == 0) {
		__asm__ volatile("xor %%edx,%%edx; xor %%ecx,%%ecx; mov $1,%%eax; idiv %%ecx" ::: "eax", "ecx", "edx", "cc");
		FAIL("no fault");
	}
	EQ(info.si_signo, SIGFPE);
	EQ(info.si_code, FPE_INTDIV);
	if (sigsetjmp(env, 1) == 0) {
		__asm__ volatile("ud2");
		FAIL("no fault");
	}
	EQ(info.si_signo, SIGILL);
	EQ(info.si_code, ILL_ILLOPN);
}

CASE(int3_trap)
{
	handle(SIGTRAP, on, 0);
	__asm__ volatile("int3");
	EQ(got, SIGTRAP);
}

CASE(segv_default_kills)
{
	int st = REAP(CHILD(*(volatile int *)0 = 1));
	EQ(WTERMSIG(st), SIGSEGV);
}

CASE(blocked_segv_still_kills)
{
	int st = REAP(CHILD({
		sigset_t m;
		sigfillset(&m);
		sigprocmask(SIG_BLOCK, &m, 0);
		handle(SIGSEGV, on, 0);
		*(volatile int *)0 = 1;
	}));
	EQ(WTERMSIG(st), SIGSEGV);
}

static void modify_context(int s, siginfo_t *i, void *u)
{
	ucontext_t *c = u;
	c->uc_mcontext.gregs[REG_RAX] = 4711;
	c->uc_mcontext.gregs[REG_RIP] += 2;
}

CASE(handler_changes_registers)
{
	handle_info(SIGILL, modify_context, 0);
	long r = 1;
	__asm__ volatile("ud2" : "+a"(r));
	EQ(r, 4711);
}

static void clobber(int s)
{
	__asm__ volatile("pxor %%xmm0,%%xmm0; pxor %%xmm15,%%xmm15; fldz; xor %%r12d,%%r12d" ::: "xmm0", "xmm15", "r12", "st");
}

CASE(handler_preserves_registers)
{
	handle(SIGUSR1, clobber, 0);
	pid_t pid = getpid();
	double in[2] = {1.25, -3.5}, out[2] = {0, 0};
	long r = 0x1234567, ret = 0;
	__asm__ volatile("movupd (%[in]), %%xmm15; mov %[r], %%r12; mov $62, %%eax; syscall; mov %%r12, %[r]; movupd %%xmm15, (%[out])"
			 : [r] "+b"(r), "=&a"(ret)
			 : [in] "r"(in), [out] "r"(out), "D"(pid), "S"(SIGUSR1)
			 : "rcx", "r11", "r12", "xmm15", "memory");
	EQ(ret, 0);
	EQ(r, 0x1234567);
	CHECK(out[0] == in[0] && out[1] == in[1]);
}

CASE(fpstate_in_frame)
{
	struct sigaction a = {.sa_flags = SA_SIGINFO};
	void check(int s, siginfo_t *i, void *u)
	{
		ucontext_t *c = u;
		got = c->uc_mcontext.fpregs != 0 && c->uc_mcontext.fpregs->mxcsr == 0x1f80;
	}
	a.sa_sigaction = check;
	OK(sigaction(SIGUSR1, &a, 0));
	raise(SIGUSR1);
	EQ(got, 1);
}

static void *interrupter(void *t)
{
	msleep(60);
	pthread_kill(*(pthread_t *)t, SIGUSR1);
	return 0;
}

static void interrupt_me(void)
{
	static pthread_t self;
	pthread_t t;
	self = pthread_self();
	sigset_t m, old;
	sigfillset(&m);
	pthread_sigmask(SIG_BLOCK, &m, &old);
	EQ(pthread_create(&t, 0, interrupter, &self), 0);
	pthread_sigmask(SIG_SETMASK, &old, 0);
}

CASE(read_interrupted)
{
	int p[2];
	char c;
	OK(pipe(p));
	handle(SIGUSR1, on, 0);
	interrupt_me();
	ERR(read(p[0], &c, 1), EINTR);
	EQ(count, 1);
}

static int wfd;
static void on_write(int s)
{
	count++;
	if (write(wfd, "z", 1) != 1)
		_exit(99);
}

CASE(read_restarted)
{
	int p[2];
	char c;
	OK(pipe(p));
	wfd = p[1];
	handle(SIGUSR1, on_write, SA_RESTART);
	interrupt_me();
	EQ(read(p[0], &c, 1), 1);
	EQ(c, 'z');
	EQ(count, 1);
}

CASE(nanosleep_reports_remainder)
{
	handle(SIGUSR1, on, SA_RESTART);
	interrupt_me();
	struct timespec t = {5, 0}, rem = {0, 0};
	ERR(nanosleep(&t, &rem), EINTR);
	CHECK(rem.tv_sec == 4);
}

CASE(pause_and_sigsuspend)
{
	handle(SIGUSR1, on, 0);
	interrupt_me();
	ERR(pause(), EINTR);
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, 0));
	raise(SIGUSR1);
	EQ(count, 1);
	sigemptyset(&m);
	ERR(sigsuspend(&m), EINTR);
	EQ(count, 2);
	sigprocmask(SIG_BLOCK, 0, &m);
	CHECK(sigismember(&m, SIGUSR1));
}

CASE(stop_signals_do_not_interrupt_sleep)
{
	pid_t p = CHILD({
		struct timespec t = {0, 300000000};
		if (nanosleep(&t, 0))
			_exit(1);
	});
	msleep(50);
	int st;
	kill(p, SIGSTOP);
	EQ(waitpid(p, &st, WUNTRACED), p);
	kill(p, SIGCONT);
	EQ(REAP(p), 0);
}

CASE(sigtimedwait)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, 0));
	struct timespec t = {0, 20000000};
	ERR(sigtimedwait(&m, 0, &t), EAGAIN);
	raise(SIGUSR1);
	siginfo_t i;
	EQ(sigtimedwait(&m, &i, &t), SIGUSR1);
	EQ(i.si_signo, SIGUSR1);
}

CASE(tgkill_thread)
{
	handle_info(SIGUSR1, on_info, 0);
	OK(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
	EQ(info.si_code, SI_TKILL);
	ERR(syscall(SYS_tgkill, getpid(), 999999, SIGUSR1), ESRCH);
	ERR(syscall(SYS_tgkill, -1, gettid(), SIGUSR1), EINVAL);
}

CASE(alarm_and_itimer)
{
	handle(SIGALRM, on, 0);
	struct itimerval v = {{0, 10000}, {0, 10000}}, old;
	OK(setitimer(ITIMER_REAL, &v, 0));
	while (count < 3)
		pause();
	memset(&v, 0, sizeof v);
	OK(setitimer(ITIMER_REAL, &v, &old));
	EQ(old.it_interval.tv_usec, 10000);
	alarm(100);
	EQ(alarm(0), 100);
}

CASE(spinning_process_is_interrupted)
{
	handle(SIGALRM, on, 0);
	struct itimerval v = {{0, 0}, {0, 20000}};
	OK(setitimer(ITIMER_REAL, &v, 0));
	while (!count)
		;
}

CASE(virtual_timer)
{
	handle(SIGVTALRM, on, 0);
	struct itimerval v = {{0, 0}, {0, 20000}};
	OK(setitimer(ITIMER_VIRTUAL, &v, 0));
	while (!count)
		;
}

CASE(sigchld_info)
{
	handle_info(SIGCHLD, on_info, 0);
	pid_t p = CHILD(_exit(6));
	while (!count)
		msleep(1);
	EQ(info.si_pid, p);
	EQ(info.si_code, CLD_EXITED);
	EQ(info.si_status, 6);
}

CASE(exec_resets_handlers_keeps_ignored)
{
	handle(SIGUSR1, on, 0);
	signal(SIGUSR2, SIG_IGN);
	EQ(REAP(CHILD({ execl("/bin/sh", "sh", "-c", "kill -USR2 $$", (char *)0); })), 0);
	EQ(WTERMSIG(REAP(CHILD({ execl("/bin/sh", "sh", "-c", "kill -USR1 $$", (char *)0); }))), SIGUSR1);
}

CASE(sigpipe)
{
	int p[2];
	OK(pipe(p));
	close(p[0]);
	handle(SIGPIPE, on, 0);
	ERR(write(p[1], "x", 1), EPIPE);
	EQ(got, SIGPIPE);
}

static void nested2(int s) { count += 10; }
static void nested1(int s)
{
	raise(SIGUSR2);
	count += 1;
}

CASE(nested_handlers)
{
	handle(SIGUSR1, nested1, 0);
	handle(SIGUSR2, nested2, 0);
	raise(SIGUSR1);
	EQ(count, 11);
}

static void *block_forever(void *x)
{
	for (;;)
		pause();
	return x;
}

CASE(fatal_signal_kills_all_threads)
{
	int st = REAP(CHILD({
		pthread_t t;
		pthread_create(&t, 0, block_forever, 0);
		sigset_t m;
		sigfillset(&m);
		pthread_sigmask(SIG_BLOCK, &m, 0);
		kill(getpid(), SIGTERM);
		msleep(3000);
	}));
	EQ(WTERMSIG(st), SIGTERM);
}

// A wait status that speaks of a core, core(5), has one to show.
CASE(status_tells_of_a_core_that_is_there)
{
	char pattern[128] = "", own[32];
	FILE *f = fopen("/proc/sys/kernel/core_pattern", "r");
	if (!f || !fgets(pattern, sizeof pattern, f) || strcmp(pattern, "core\n"))
		SKIP("cores go elsewhere");
	fclose(f);
	tmpdir();
	pid_t c = CHILD({
		struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
		setrlimit(RLIMIT_CORE, &all);
		raise(SIGSEGV);
	});
	sprintf(own, "core.%d", c);
	int st = REAP(c);
	EQ(WTERMSIG(st), SIGSEGV);
	EQ(!!WCOREDUMP(st), !access("core", F_OK) || !access(own, F_OK));
	unlink("core");
	unlink(own);
}
