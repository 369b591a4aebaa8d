// Hostile programs for the sandbox. Never run them on a host. Each attack runs in a child of its own, which may die of it;
// a bystander checks after each that other processes work and that their memory is what it was. The addresses are those of the
// systrap platform's stub region; elsewhere nothing is mapped there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define TEXT 0x7ff000000000ul
#define DONE 0x7ff000020000ul
#define SLOTS 0x7ff010000000ul
#define SLOT 0x8000ul

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed;
}

static uint64_t pick(void)
{
	static const uint64_t some[] = {0, 1, SLOTS, SLOTS + 0x1000, SLOTS + SLOT, SLOTS + 3 * SLOT + 0x3000, DONE, TEXT, TEXT + 0x1000, 0x7ff000008000, 0x7ff000010000,
		0x7ff000040000, -1ul, 1ul << 47, 9, 56, 15, 202, 231, 10, 0x400000, 0x80000001};
	return rnd() % 4 ? some[rnd() % (sizeof some / sizeof *some)] : rnd();
}

static void *caller(void *arg)
{
	for (;;) {
		if (syscall(SYS_gettid) <= 0 || syscall(SYS_getppid) < 0)
			_exit(3);
		char *p = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED)
			p[4096] = 1, munmap(p, 65536);
		if (arg) {
			pid_t c = fork();
			if (!c)
				_exit(0);
			if (c > 0)
				waitpid(c, 0, 0);
		}
	}
}

static pthread_t start(void *(*f)(void *), void *arg)
{
	pthread_t t;
	if (pthread_create(&t, 0, f, arg))
		_exit(4);
	return t;
}

// write_stub writes over all of the slots and the memory thread's answers while other threads trap, map, fault and fork.
static void write_stub(void)
{
	start(caller, 0), start(caller, 0), start(caller, (void *)1);
	for (;;) {
		volatile uint64_t *p = (uint64_t *)(rnd() % 8 ? SLOTS + rnd() % (15 * SLOT) / 8 * 8 : DONE + rnd() % 4096 / 8 * 8);
		uint64_t v = pick();
		for (int i = rnd() % 64; i >= 0; i--)
			p[i & 7] = v;
	}
}

// write_slots is write_stub for the first words of each slot only, which the hand-off uses.
static void write_slots(void)
{
	start(caller, 0), start(caller, (void *)1);
	for (;;)
		*(volatile uint32_t *)(SLOTS + rnd() % 5 * SLOT + rnd() % 80 * 4) = rnd() % 3 ? rnd() % 4 : pick();
}

static void *jump(void *arg)
{
	uint64_t r[8];
	for (int i = 0; i < 8; i++)
		r[i] = pick();
	asm volatile("mov 0(%0), %%rdi; mov 8(%0), %%rsi; mov 16(%0), %%rdx; mov 24(%0), %%r10; mov 32(%0), %%r8; mov 40(%0), %%r12;"
		     "mov 48(%0), %%rbx; mov 56(%0), %%r13; mov %2, %%rax; mov %%rbx, %%r14; mov %%rdi, %%r15; jmp *%1" ::"r"(r), "r"(TEXT + rnd() % 0x800), "r"(pick())
		     : "rax", "rbx", "rdi", "rsi", "rdx", "r10", "r8", "r12", "r13", "r14", "r15", "memory");
	return 0;
}

static void jump_stub(void)
{
	start(caller, 0);
	for (int i = 0; i < 3; i++)
		start(jump, 0);
	for (;;)
		pause();
}

// code is a hot call site in a file that is mapped twice.
static unsigned char *code, *alias;
static int code_fd;
static const unsigned char site[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}; // mov $39,%eax; syscall; ret

static void *call_code(void *arg)
{
	pid_t self = getpid();
	for (;;) {
		long r = ((long (*)(void))code)();
		if (arg && r != self)
			_exit(5);
	}
}

static void make_code(int shared)
{
	code_fd = memfd_create("code", 0);
	if (ftruncate(code_fd, 4096))
		_exit(4);
	alias = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, code_fd, 0);
	memcpy(alias, site, sizeof site);
	code = mmap(0, 4096, PROT_READ | PROT_EXEC, shared ? MAP_SHARED : MAP_PRIVATE, code_fd, 0);
	start(call_code, 0), start(call_code, 0);
	usleep(20000);
}

static void rewrite_mprotect(void)
{
	make_code(0);
	for (unsigned i = 0;; i++) {
		mprotect(code, 4096, PROT_READ | PROT_WRITE | (i & 1 ? PROT_EXEC : 0));
		code[1] = i & 2 ? 39 : 110;
		memcpy(code, site, i % 8);
		mprotect(code, 4096, PROT_READ | PROT_EXEC);
		if (i % 64 == 0)
			usleep(2000);
	}
}

static void rewrite_alias(void)
{
	make_code(1);
	for (unsigned i = 0;; i++) {
		alias[1] = i & 1 ? 39 : 110;
		msync(alias, 4096, MS_SYNC);
	}
}

static void rewrite_mem(void)
{
	make_code(0);
	int fd = open("/proc/self/mem", O_RDWR);
	for (unsigned i = 0;; i++)
		if (pwrite(fd, i & 1 ? site : (const unsigned char *)"\xb8\x6e\0\0\0\x0f\x05\xc3", i % 9, (off_t)(uintptr_t)code) < 0)
			usleep(1000);
}

static void rewrite_poke(void)
{
	pid_t p = fork();
	if (!p) {
		make_code(0);
		call_code(0);
	}
	usleep(50000);
	for (unsigned i = 0;; i++) {
		int st;
		if (ptrace(PTRACE_ATTACH, p, 0, 0) || waitpid(p, &st, 0) != p)
			_exit(0);
		for (int j = 0; j < 20; j++) {
			ptrace(PTRACE_POKETEXT, p, (char *)(uintptr_t)call_code + j % 8, rnd());
			ptrace(PTRACE_SINGLESTEP, p, 0, 0);
			waitpid(p, &st, 0);
		}
		ptrace(PTRACE_DETACH, p, 0, 0);
	}
}

static void flags(void)
{
	struct itimerval t = {{0, 700}, {0, 700}};
	signal(SIGALRM, SIG_IGN);
	signal(SIGTRAP, SIG_IGN);
	start(caller, 0);
	setitimer(ITIMER_REAL, &t, 0);
	for (;;) {
		uint64_t f = 2 | (rnd() & 0x247fd5);
		unsigned csr = rnd() & 0xffff;
		asm volatile("ldmxcsr %1; push %0; popf; mov $39, %%eax; syscall; push $2; popf; cld" ::"r"(f & ~0x100ul), "m"(csr) : "rax", "rcx", "r11", "memory", "cc");
		asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs" ::"r"((unsigned short)(rnd() & 1 ? 0x2b : 0)));
	}
}

static volatile int got;
static void on(int sig) { got++; }
static void signals(void)
{
	struct sigaction sa = {.sa_handler = on, .sa_flags = SA_RESTART};
	struct itimerval t = {{0, 200}, {0, 200}};
	sigaction(SIGALRM, &sa, 0);
	sigaction(SIGUSR1, &sa, 0);
	setitimer(ITIMER_REAL, &t, 0);
	make_code(0);
	pid_t self = getpid();
	for (int i = 0; i < 300; i++) {
		t.it_value.tv_usec = 1 + rnd() % 300;
		setitimer(ITIMER_REAL, &t, 0);
		for (int j = 0; j < 20; j++)
			if (((long (*)(void))code)() != self || syscall(SYS_getpid) != self)
				_exit(5);
		if (kill(self, SIGUSR1))
			_exit(6);
	}
	_exit(got > 300 ? 0 : 7);
}

static void exec_storm(void)
{
	char *argv[] = {"hostile", "again", getenv("N") ? getenv("N") : "0", 0}, n[16];
	start(caller, 0), start(caller, 0), start(caller, (void *)1);
	usleep(rnd() % 3000);
	snprintf(n, sizeof n, "%d", atoi(argv[2]) + 1);
	setenv("N", n, 1);
	if (atoi(n) > 20)
		_exit(0);
	execv("/proc/self/exe", argv);
	_exit(8);
}

static void fork_bomb(void)
{
	static volatile int *count;
	count = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (;;) {
		if (__sync_add_and_fetch(count, 1) > 150)
			for (;;)
				pause();
		if (fork() < 0)
			sched_yield();
	}
}

static void *idle(void *arg)
{
	syscall(SYS_getpid);
	sched_yield();
	pause();
	return 0;
}

static void clone_storm(void)
{
	pthread_attr_t a;
	pthread_t t;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 16384);
	int n = 0;
	while (n < 400 && !pthread_create(&t, &a, idle, 0))
		n++;
	_exit(n < 100 ? 9 : 0);
}

static const struct { const char *name; void (*run)(void); int must; } attacks[] = {
	{"write_stub", write_stub}, {"write_slots", write_slots}, {"jump_stub", jump_stub}, {"jump_stub", jump_stub}, {"jump_stub", jump_stub},
	{"rewrite_mprotect", rewrite_mprotect}, {"rewrite_alias", rewrite_alias}, {"rewrite_mem", rewrite_mem}, {"rewrite_poke", rewrite_poke},
	{"flags", flags}, {"signals", signals, 1}, {"exec_storm", exec_storm, 1}, {"fork_bomb", fork_bomb}, {"clone_storm", clone_storm, 1},
};

static uint64_t canary[8192];

// check is what the bystander does: calls, memory, a child, a pipe.
static void check(const char *name)
{
	int fd[2], st;
	char b[4];
	for (int i = 0; i < 8192; i++)
		if (canary[i] != i * 0x9e3779b97f4a7c15ull)
			printf("%s: memory changed\n", name), exit(1);
	for (int i = 0; i < 200; i++)
		if (getppid() < 0 || write(-1, b, 1) != -1 || errno != EBADF)
			printf("%s: system calls\n", name), exit(1);
	if (pipe(fd))
		exit(1);
	pid_t p = fork();
	if (!p)
		_exit(write(fd[1], "abc", 3) != 3);
	if (p < 0 || read(fd[0], b, 3) != 3 || memcmp(b, "abc", 3) || waitpid(p, &st, 0) != p || st)
		printf("%s: fork, pipe: %d\n", name, st), exit(1);
	close(fd[0]), close(fd[1]);
}

int main(int argc, char **argv)
{
	int ms = argc > 1 ? atoi(argv[1]) : 300, failed = 0;
	if (argc > 2 && !strcmp(argv[1], "again"))
		exec_storm();
	setvbuf(stdout, 0, _IONBF, 0);
	for (int i = 0; i < 8192; i++)
		canary[i] = i * 0x9e3779b97f4a7c15ull;
	for (unsigned i = 0; i < sizeof attacks / sizeof *attacks; i++) {
		if (argc > 2 && strcmp(argv[2], attacks[i].name))
			continue;
		int st, waited = 0;
		pid_t p = fork();
		seed += p;
		if (!p) {
			setpgid(0, 0);
			attacks[i].run();
			_exit(0);
		}
		setpgid(p, p);
		while (waited++ < (attacks[i].must ? 30000 : ms) && waitpid(p, &st, WNOHANG) == 0)
			usleep(1000), st = -1;
		kill(-p, SIGKILL);
		if (st == -1)
			waitpid(p, &st, 0);
		check(attacks[i].name);
		printf("%s: %#x\n", attacks[i].name, st);
		if (attacks[i].must && st)
			failed = 1;
	}
	puts(failed ? "failed" : "survived");
	return failed;
}
