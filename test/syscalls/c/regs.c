// Registers: what the processor holds is the same before and after system calls, signals, faults and switches.
#include "husk.h"
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/time.h>
#include <ucontext.h>

// fill and store set and read the widest vector registers that the processor has, x87 and MXCSR.
struct state {
	unsigned char v[32][64];
	unsigned char x87[108];
	uint32_t mxcsr;
	uint64_t k[8];
} __attribute__((aligned(64)));

static int avx512, avx;

static void detect(void)
{
	unsigned a, b, c, d, lo, hi;
	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE))
		return;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	avx = (lo & 6) == 6 && (c & bit_AVX);
	__cpuid_count(7, 0, a, b, c, d);
	avx512 = avx && (lo & 0xe0) == 0xe0 && (b & bit_AVX512F);
}

static inline __attribute__((always_inline)) void load(const struct state *s)
{
	if (avx512) {
#define L(n) asm volatile("vmovdqu64 %0, %%zmm" #n ::"m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
		L(16) L(17) L(18) L(19) L(20) L(21) L(22) L(23) L(24) L(25) L(26) L(27) L(28) L(29) L(30) L(31)
#undef L
		asm volatile("kmovw %0, %%k1; kmovw %1, %%k7" ::"m"(s->k[1]), "m"(s->k[7]));
	} else if (avx) {
#define L(n) asm volatile("vmovdqu %0, %%ymm" #n ::"m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
#undef L
	} else {
#define L(n) asm volatile("movdqu %0, %%xmm" #n ::"m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
#undef L
	}
	asm volatile("frstor %0; ldmxcsr %1" ::"m"(s->x87), "m"(s->mxcsr));
}

static inline __attribute__((always_inline)) void store(struct state *s)
{
	if (avx512) {
#define L(n) asm volatile("vmovdqu64 %%zmm" #n ", %0" : "=m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
		L(16) L(17) L(18) L(19) L(20) L(21) L(22) L(23) L(24) L(25) L(26) L(27) L(28) L(29) L(30) L(31)
#undef L
		asm volatile("kmovw %%k1, %0; kmovw %%k7, %1" : "=m"(s->k[1]), "=m"(s->k[7]));
	} else if (avx) {
#define L(n) asm volatile("vmovdqu %%ymm" #n ", %0" : "=m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
#undef L
	} else {
#define L(n) asm volatile("movdqu %%xmm" #n ", %0" : "=m"(s->v[n]));
		L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
#undef L
	}
	asm volatile("fnsave %0; stmxcsr %1" : "=m"(s->x87), "=m"(s->mxcsr));
}

// pattern makes a state that differs from others in everything. The x87 registers hold numbers, since the tag word
// depends on them.
static void pattern(struct state *s, unsigned seed)
{
	unsigned width = avx512 ? 64 : avx ? 32 : 16, regs = avx512 ? 32 : 16;
	memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < regs; i++)
		for (unsigned j = 0; j < width; j++)
			s->v[i][j] = (seed * 131 + i * 67 + j * 29 + 1);
	if (avx512)
		s->k[1] = (seed * 31) & 0xffff, s->k[7] = (seed * 77) & 0xffff;
	s->mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 1) << 15;
	unsigned short cw = 0x37f | (seed & 3) << 10;
	asm volatile("fninit; fldcw %0" ::"m"(cw));
	for (unsigned i = 0; i < 1 + seed % 7; i++) {
		double d = seed * 1.25 + i;
		asm volatile("fldl %0" ::"m"(d));
	}
	asm volatile("fnsave %0" : "=m"(s->x87));
}

static void same(struct state *a, struct state *b)
{
	// The last instruction and operand of the x87 unit are not state that programs rely on.
	memset(a->x87 + 12, 0, 16);
	memset(b->x87 + 12, 0, 16);
	for (int i = 0; i < 32; i++)
		for (int j = 0; j < 64; j++)
			if (a->v[i][j] != b->v[i][j])
				FAIL("byte %d of vector register %d is %#x, want %#x", j, i, b->v[i][j], a->v[i][j]);
	CHECK(!memcmp(a->x87, b->x87, sizeof a->x87));
	CHECK(!memcmp(a->k, b->k, sizeof a->k));
	EQ(a->mxcsr, b->mxcsr);
}

// GPCALL makes a system call with noise in all registers and checks that all but rax, rcx and r11 are kept.
#define GPCALL(number, a1, before, insn)                                                           \
	({                                                                                         \
		uint64_t in_[16], out_[16], bad_ = 0;                                              \
		for (int i_ = 0; i_ < 16; i_++)                                                    \
			in_[i_] = 0x1111111111111111ull * (i_ + 1) ^ (uint64_t)now_ms();           \
		in_[0] = (number), in_[1] = (a1);                                                  \
		asm volatile("push %%rbp; push %%rbx; mov %0, %%rax; mov %1, %%r8; push %%r8;"     \
			     "mov 8(%%rax), %%rdi; mov 16(%%rax), %%rsi; mov 24(%%rax), %%rdx;"    \
			     "mov 32(%%rax), %%r10; mov 40(%%rax), %%r9; mov 48(%%rax), %%rbx;"    \
			     "mov 56(%%rax), %%rbp; mov 64(%%rax), %%r12; mov 72(%%rax), %%r13;"   \
			     "mov 80(%%rax), %%r14; mov 88(%%rax), %%r15; mov 96(%%rax), %%r8;"    \
			     "push 0(%%rax); pop %%rax; " before insn "; push %%rax; mov 8(%%rsp), %%rax;" \
			     "mov %%rdi, 8(%%rax); mov %%rsi, 16(%%rax); mov %%rdx, 24(%%rax);"    \
			     "mov %%r10, 32(%%rax); mov %%r9, 40(%%rax); mov %%rbx, 48(%%rax);"    \
			     "mov %%rbp, 56(%%rax); mov %%r12, 64(%%rax); mov %%r13, 72(%%rax);"   \
			     "mov %%r14, 80(%%rax); mov %%r15, 88(%%rax); mov %%r8, 96(%%rax);"    \
			     "pop 0(%%rax); pop %%rcx; pop %%rbx; pop %%rbp"                       \
			     :                                                                     \
			     : "r"(in_), "r"(out_)                                                 \
			     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", \
			       "r13", "r14", "r15", "memory", "cc");                               \
		for (int i_ = 1; i_ <= 12; i_++)                                                   \
			bad_ |= in_[i_] != out_[i_];                                               \
		CHECK(!bad_);                                                                      \
		out_[0];                                                                           \
	})

// Call sites of the kinds that a sandbox may replace, often enough for that.
CASE(general_registers)
{
	for (int i = 0; i < 1000; i++) {
		EQ(GPCALL(SYS_getpid, 1, "", "syscall"), getpid());
		EQ(GPCALL(0, 1, "mov $39, %%eax;", "syscall"), getpid());
		EQ(GPCALL(0, 1, "mov $39, %%rax;", "syscall"), getpid());
		EQ(GPCALL(SYS_getpid, 1, "", "syscall; cmp $-4095, %%rax"), getpid());
		EQ(GPCALL(SYS_close, 9999, "", "syscall; cmp $-4095, %%rax"), -EBADF);
	}
}

CASE(flags)
{
	for (int i = 0; i < 300; i++) {
		for (int kind = 0; kind < 2; kind++) {
			uint64_t want = 0x202 | (i & 1) | (i & 2) << 1 | (i & 4) << 4 | (i & 8) << 8 | (i & 16) << 6, got, r11;
			if (i & 32)
				want |= 0x40000; // AC
			if (kind)
				asm volatile("push %2; popf; mov $39, %%eax; syscall; pushf; pop %0; mov %%r11, %1; push $0x202; popf"
					     : "=&r"(got), "=&r"(r11) : "r"(want) : "rax", "rcx", "r11", "memory", "cc");
			else
				asm volatile("push %2; popf; mov %3, %%eax; syscall; pushf; pop %0; mov %%r11, %1; push $0x202; popf"
					     : "=&r"(got), "=&r"(r11) : "r"(want), "i"(SYS_getppid) : "rax", "rcx", "r11", "memory", "cc");
			EQ(got & 0x40cd5, want & 0x40cd5);
			EQ(r11 & 0x40cd5, want & 0x40cd5);
		}
	}
}

// vectors checks the extended state across what f does.
#define VECTORS(seed, ...)                         \
	do {                                       \
		static __thread struct state a_, b_; \
		pattern(&a_, (seed));              \
		load(&a_);                         \
		__VA_ARGS__;                       \
		store(&b_);                        \
		asm volatile("fninit");            \
		same(&a_, &b_);                    \
	} while (0)

#define CALL39 asm volatile("mov $39, %%eax; syscall" ::: "rax", "rcx", "r11", "memory")
#define YIELD asm volatile("mov $24, %%eax; syscall" ::: "rax", "rcx", "r11", "memory")

CASE(vectors_over_syscalls)
{
	detect();
	for (unsigned i = 0; i < 500; i++) {
		VECTORS(i, CALL39);
		VECTORS(i, YIELD);
	}
}

static volatile int stop;
static void *vector_thread(void *arg)
{
	unsigned seed = (uintptr_t)arg;
	for (unsigned i = 0; i < 400; i++) {
		VECTORS(seed * 977 + i, YIELD);
		VECTORS(seed * 977 + i, for (volatile int j = 0; j < 2000; j++));
	}
	return 0;
}

CASE(vectors_between_threads)
{
	pthread_t t[6];
	detect();
	for (uintptr_t i = 0; i < 6; i++)
		EQ(pthread_create(&t[i], 0, vector_thread, (void *)(i + 1)), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(t[i], 0);
}

static volatile int signals;
static struct state other;
static void clobber(int sig)
{
	load(&other);
	signals++;
}

CASE(vectors_over_signals)
{
	struct itimerval t = {{0, 1000}, {0, 1000}};
	detect();
	pattern(&other, 12345);
	signal(SIGUSR1, clobber);
	signal(SIGALRM, clobber);
	pid_t self = getpid();
	for (unsigned i = 0; i < 300; i++)
		VECTORS(i, asm volatile("syscall" ::"a"(SYS_kill), "D"(self), "S"(SIGUSR1) : "rcx", "r11", "memory"));
	EQ(signals, 300);
	setitimer(ITIMER_REAL, &t, 0);
	for (unsigned i = 0; signals < 400; i++) {
		VECTORS(i, for (volatile int j = 0; j < 3000; j++));
		VECTORS(i, CALL39);
	}
	t.it_value.tv_usec = 0;
	setitimer(ITIMER_REAL, &t, 0);
}

static char *page;
static void fault(int sig, siginfo_t *si, void *u)
{
	load(&other);
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
	signals++;
}

CASE(vectors_over_faults)
{
	struct sigaction sa = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
	detect();
	pattern(&other, 999);
	sigaction(SIGSEGV, &sa, 0);
	page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 200; i++) {
		mprotect(page, 4096, PROT_READ);
		VECTORS(i, *(volatile char *)page = 1);
	}
	EQ(signals, 200);
	// And a page that is not there yet.
	char *more = mmap(0, 200 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 200; i++)
		VECTORS(i, *(volatile char *)(more + i * 4096) = 1);
}

CASE(vectors_over_fork)
{
	detect();
	for (unsigned i = 0; i < 20; i++) {
		pid_t p;
		VECTORS(i, asm volatile("syscall" : "=a"(p) : "a"(SYS_fork) : "rcx", "r11", "memory"));
		if (!p)
			_exit(0);
		EQ(REAP(p), 0);
	}
}

// all registers are those of a handler's frame after sigreturn, though the handler changes every one in its own copy.
CASE(sigreturn_changes_registers)
{
	signal(SIGUSR1, clobber);
	for (int i = 0; i < 200; i++) {
		uint64_t bx = i, r12 = i * 3, r15 = ~i;
		asm volatile("syscall" : "+b"(bx) : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1) : "rcx", "r11", "memory");
		register uint64_t a asm("r12") = r12, b asm("r15") = r15;
		asm volatile("syscall" : "+r"(a), "+r"(b) : "a"(SYS_getpid) : "rcx", "r11", "memory");
		CHECK(bx == (uint64_t)i && a == r12 && b == r15);
	}
}

CASE(exec_start_state)
{
	int st;
	struct user_regs_struct r;
	struct user_fpregs_struct f;
	pid_t p = OK(fork());
	if (!p) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		detect();
		pattern(&other, 7);
		raise(SIGSTOP);
		char *argv[] = {"self", "-l", 0};
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		load(&other);
		execv("/proc/self/exe", argv);
		_exit(9);
	}
	EQ(waitpid(p, &st, 0), p);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	EQ(waitpid(p, &st, 0), p);
	CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == SIGTRAP);
	OK(ptrace(PTRACE_GETREGS, p, 0, &r));
	OK(ptrace(PTRACE_GETFPREGS, p, 0, &f));
	CHECK(!(r.rbx | r.rcx | r.rdx | r.rsi | r.rdi | r.rbp | r.r8 | r.r9 | r.r10 | r.r11 | r.r12 | r.r13 | r.r14 | r.r15));
	CHECK(!r.fs_base && !r.gs_base && !r.ds && !r.es && !r.fs && !r.gs);
	EQ(r.cs, 0x33);
	EQ(r.ss, 0x2b);
	EQ(r.eflags & ~0x10000ull, 0x202 & r.eflags);
	EQ(r.rsp & 15, 0);
	EQ(f.cwd, 0x37f);
	EQ(f.mxcsr, 0x1f80);
	for (unsigned i = 0; i < sizeof f.xmm_space / 4; i++)
		EQ(((unsigned *)f.xmm_space)[i], 0);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	EQ(waitpid(p, &st, 0), p);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
}

static __attribute__((noinline, noclone)) void step_loop(void)
{
	asm volatile("mov $200, %%ebx; loop_start: mov $39, %%eax; loop_call: syscall; loop_next: dec %%ebx; jnz loop_start" ::
			     : "rax", "rbx", "rcx", "r11", "memory", "cc");
}

// A debugger that steps through a loop of system calls sees each instruction, in order, hot or not.
CASE(step_through_syscalls)
{
	int st;
	unsigned long last = 0, calls = 0;
	struct user_regs_struct r;
	extern char loop_start[], loop_call[], loop_next[];
	pid_t p = OK(fork());
	if (!p) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		step_loop();
		raise(SIGSTOP);
		step_loop();
		_exit(4);
	}
	EQ(waitpid(p, &st, 0), p);
	for (int i = 0; i < 700; i++) {
		OK(ptrace(PTRACE_SINGLESTEP, p, 0, 0));
		CHECK(waitpid(p, &st, 0) == p && WIFSTOPPED(st) && WSTOPSIG(st) == SIGTRAP);
		OK(ptrace(PTRACE_GETREGS, p, 0, &r));
		if (last == (uintptr_t)loop_start)
			EQ(r.rip, (uintptr_t)loop_call);
		if (last == (uintptr_t)loop_call) {
			EQ(r.rip, (uintptr_t)loop_next);
			EQ(r.rax, p);
			calls++;
		}
		last = r.rip;
	}
	CHECK(calls > 100);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	CHECK(waitpid(p, &st, 0) == p && WIFEXITED(st) && WEXITSTATUS(st) == 4);
}

static volatile unsigned long trapped, trap_in;
static void on_trap(int sig, siginfo_t *si, void *u)
{
	ucontext_t *c = u;
	extern char tf_start[], tf_end[];
	trapped++;
	trap_in += c->uc_mcontext.gregs[REG_RIP] >= (long)tf_start && c->uc_mcontext.gregs[REG_RIP] <= (long)tf_end;
}

static __attribute__((noinline, noclone)) void trap_loop(void)
{
	asm volatile("tf_start: pushf; orq $0x100, (%%rsp); popf; mov $20, %%ebx; 1: mov $39, %%eax; syscall; dec %%ebx; jnz 1b;"
			     "pushf; andq $~0x100, (%%rsp); popf; tf_end: nop" ::
				     : "rax", "rbx", "rcx", "r11", "memory", "cc");
}

// The trap flag that a program sets itself.
CASE(trap_flag)
{
	struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
	sigaction(SIGTRAP, &sa, 0);
	unsigned long first = 0;
	for (int round = 0; round < 200; round++) {
		trapped = trap_in = 0;
		trap_loop();
		if (!round)
			first = trapped;
		EQ(trapped, first);
		EQ(trap_in, trapped);
	}
}

CASE(vsyscall_page)
{
	unsigned a, b, c, d;
	__cpuid(0, a, b, c, d);
	pid_t p = OK(fork());
	if (!p) {
		// Emulated, executed or forbidden, but never anything else.
		time_t t = ((time_t(*)(time_t *))0xffffffffff600400)(0);
		time_t now = time(0);
		_exit(t < now - 2 || t > now + 2);
	}
	int st = REAP(p);
	CHECK(WIFEXITED(st) ? WEXITSTATUS(st) == 0 : WTERMSIG(st) == SIGSEGV);
}

CASE(time_stamp_counter)
{
	uint64_t last = 0;
	for (int i = 0; i < 20000; i++) {
		uint32_t lo, hi, cpu = 0;
		if (i & 1)
			asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(cpu));
		else
			asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
		uint64_t now = (uint64_t)hi << 32 | lo;
		CHECK(now > last);
		last = now;
		if (i % 100 == 0)
			sched_yield();
	}
}

// Segment selectors that a program loads itself, and the bases.
CASE(segments)
{
	unsigned short ds, es, gs;
	for (int i = 0; i < 100; i++) {
		asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs" ::"r"((unsigned short)(i & 1 ? 0x2b : 0)));
		EQ(syscall(SYS_getpid), getpid());
		asm volatile("mov $39, %%eax; syscall" ::: "rax", "rcx", "r11", "memory");
		sched_yield();
		asm volatile("mov %%ds, %0; mov %%es, %1; mov %%gs, %2" : "=r"(ds), "=r"(es), "=r"(gs));
		asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs" ::"r"((unsigned short)0));
		EQ(ds & ~0x2b, 0);
	}
}
