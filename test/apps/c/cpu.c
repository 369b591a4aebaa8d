// What a program can find out about the processor without asking the kernel, as text that is the same on the host and in a sandbox.
// Usage: cpu id|tsc|stamp|vsyscall
#define _GNU_SOURCE
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t rdtsc(void)
{
	uint32_t lo, hi;
	asm volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi)::"memory");
	return (uint64_t)hi << 32 | lo;
}

// id prints all leaves. What differs between the processors of a machine, or from moment to moment, is left out.
static void id(void)
{
	static const unsigned ranges[] = {0, 0x40000000, 0x80000000, 0xc0000000};
	for (int r = 0; r < 4; r++) {
		unsigned top, a, b, c, d;
		__cpuid_count(ranges[r], 0, top, b, c, d);
		if (top < ranges[r] || top > ranges[r] + 0x200)
			top = ranges[r]; // the range is not there: whatever its first leaf says
		for (unsigned leaf = ranges[r]; leaf <= top; leaf++) {
			unsigned last[4] = {0};
			for (unsigned sub = 0; sub < 64; sub++) {
				__cpuid_count(leaf, sub, a, b, c, d);
				if (leaf == 1)
					b &= 0x00ffffff; // the APIC's number
				if (leaf == 0xb || leaf == 0x1f || leaf == 0x80000026)
					d = 0;
				if (leaf == 0x8000001e)
					a = 0, b &= ~0xff, c &= ~0xff; // numbers of the APIC, core and node
				unsigned now[4] = {a, b, c, d};
				// Leaves without subleaves say the same for each.
				if (sub && !memcmp(now, last, sizeof now))
					continue;
				memcpy(last, now, sizeof now);
				if (!sub || a || b || c || d)
					printf("%08x %2u: %08x %08x %08x %08x\n", leaf, sub, a, b, c, d);
			}
		}
	}
	unsigned lo, hi;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	printf("xcr0: %08x%08x\n", hi, lo);
}

static volatile uint64_t newest;
static volatile int backwards;

static void *watch(void *arg)
{
	for (int i = 0; i < 200000; i++) {
		uint64_t seen = __atomic_load_n(&newest, __ATOMIC_SEQ_CST), now = rdtsc();
		if (now < seen)
			backwards = 1;
		while (seen < now && !__atomic_compare_exchange_n(&newest, &seen, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
		if (i % 1000 == 0)
			sched_yield();
	}
	return 0;
}

// tsc checks the time stamp counter: no thread sees it go back, and it is the clock of clock_gettime(2).
static void tsc(void)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		if (pthread_create(&t[i], 0, watch, 0))
			exit(1);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], 0);
	printf("backwards: %d\n", backwards);
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

// stamp prints the counter and its rate in kHz.
static void stamp(void)
{
	double from = seconds();
	uint64_t t = rdtsc();
	while (seconds() < from + 0.2)
		;
	uint64_t u = rdtsc();
	printf("%llu %.0f\n", (unsigned long long)u, (u - t) / (seconds() - from) / 1e3);
}

static void on(int sig, siginfo_t *si, void *u)
{
	dprintf(1, "signal %d code %d address %#lx\n", sig, si->si_code, (unsigned long)si->si_addr);
	_exit(0);
}

#define VSYSCALL 0xffffffffff600000ul

// try runs something that may not return, in a child.
#define TRY(name, ...) do { \
		printf(name ": "); \
		fflush(stdout); \
		if (!fork()) { \
			for (int s = 1; s < 32; s++) \
				sigaction(s, &(struct sigaction){.sa_sigaction = on, .sa_flags = SA_SIGINFO}, 0); \
			__VA_ARGS__; \
			fflush(stdout); \
			_exit(0); \
		} \
		int st; \
		wait(&st); \
		if (st) \
			printf("status %#x\n", st); \
	} while (0)

static int near(time_t t) { time_t now = time(0); return t >= now - 2 && t <= now + 2; }

static void vsyscall(void)
{
	time_t (*vtime)(time_t *) = (void *)(VSYSCALL + 0x400);
	int (*vday)(struct timeval *, struct timezone *) = (void *)VSYSCALL;
	int (*vcpu)(unsigned *, unsigned *, void *) = (void *)(VSYSCALL + 0x800);
	time_t t = 0;
	struct timeval v = {0};
	struct timezone z = {9, 9};
	unsigned cpu = -1, node = -1;
	void *volatile bad = (void *)1;
	TRY("time", printf("%d\n", near(vtime(0))));
	TRY("time with a place", time_t r = vtime(&t); printf("%d %d\n", near(r), r == t));
	TRY("gettimeofday", int r = vday(&v, &z); printf("%d %d %d %d\n", r, near(v.tv_sec), z.tz_minuteswest, z.tz_dsttime));
	TRY("gettimeofday of nothing", printf("%d\n", vday(0, 0)));
	TRY("getcpu", int r = vcpu(&cpu, &node, 0); printf("%d %d %u\n", r, cpu < sysconf(_SC_NPROCESSORS_CONF), node));
	TRY("getcpu of nothing", printf("%d\n", vcpu(0, 0, 0)));
	TRY("time at a bad place", printf("%d\n", near(vtime(bad))));
	TRY("gettimeofday at a bad place", printf("%d\n", vday(bad, 0)));
	TRY("getcpu at a bad place", printf("%d\n", vcpu(bad, 0, 0)));
	TRY("fourth function", ((void (*)(void))(VSYSCALL + 0xc00))());
	TRY("middle of a function", ((void (*)(void))(VSYSCALL + 0x401))());
	TRY("read", printf("%d\n", *(volatile char *)VSYSCALL));
	TRY("write", *(volatile char *)VSYSCALL = 1);
	TRY("next page", ((void (*)(void))(VSYSCALL + 0x1000))());
	// Flags and registers but rax, rcx and r11 stay.
	TRY("registers", unsigned long rbx = 1, r12 = 2, rdx = 3, rsi = 4, r; void *f = vtime;
	    asm volatile("mov $1, %%ebx; mov $2, %%r12d; mov $3, %%edx; mov $4, %%esi; xor %%edi, %%edi; call *%5; mov %%rbx, %0; mov %%r12, %1; mov %%rdx, %2; mov %%rsi, %3; mov %%rax, %4"
			 : "=&m"(rbx), "=&m"(r12), "=&m"(rdx), "=&m"(rsi), "=&m"(r) : "r"(f) : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "r12", "memory", "cc");
	    printf("%lu %lu %lu %lu %d\n", rbx, r12, rdx, rsi, near(r)));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "id"))
		id();
	else if (!strcmp(what, "tsc"))
		tsc();
	else if (!strcmp(what, "stamp"))
		stamp();
	else if (!strcmp(what, "vsyscall"))
		vsyscall();
	else
		return 2;
	return 0;
}
