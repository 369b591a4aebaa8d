// Makes random system calls with arguments that are likely to hurt, in child after child, for a while.
// Usage: random SEED SECONDS. Exits 0 if the parent could work until the end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;
static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static char *area;
#define AREA (1 << 20)

static uint64_t argument(void)
{
	static const uint64_t odd[] = {0, 1, 2, 3, 7, 8, -1, -2, -100, 4095, 4096, 4097, 65536, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff,
				       0x100000000, 1ULL << 47, (1ULL << 47) - 4096, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffff600000};
	switch (rnd() % 8) {
	case 0:
	case 1:
		return odd[rnd() % (sizeof odd / sizeof *odd)];
	case 2:
		return rnd() % 20;
	case 3:
		return 1ULL << (rnd() % 64);
	case 4:
		return (uint64_t)area + rnd() % AREA;
	case 5:
		return (uint64_t)area + (rnd() % (AREA / 4096)) * 4096 + 4096 - rnd() % 32;
	case 6:
		return rnd();
	default:
		return (uint64_t)area + rnd() % 4096 / 8 * 8;
	}
}

// Calls that would only end or hang the child at once.
static int skip(long nr)
{
	switch (nr) {
	case SYS_exit: case SYS_exit_group: case SYS_pause: case SYS_rt_sigsuspend: case SYS_reboot: case SYS_vhangup: case SYS_kill: case SYS_tkill: case SYS_tgkill:
		return 1;
	}
	return 0;
}

static void fill(void)
{
	static const char *names[] = {"/tmp", "/proc/self/mem", "/proc/self/fd/0", "/dev/null", "/dev/ptmx", "/proc", ".", "..", "x", "x/y", "/proc/self/ns/user", ""};
	for (int i = 0; i < 4096; i += 8)
		*(uint64_t *)(area + i) = argument();
	for (int i = 0; i < 24; i++)
		strcpy(area + 8192 + (rnd() % 60) * 64, names[rnd() % (sizeof names / sizeof *names)]);
}

static void child(int calls)
{
	struct rlimit r = {64 << 20, 64 << 20};
	setrlimit(RLIMIT_FSIZE, &r);
	r.rlim_cur = r.rlim_max = 200;
	setrlimit(RLIMIT_NPROC, &r);
	alarm(2);
	int p[2];
	if (pipe(p) == 0)
		fcntl(p[0], F_SETFL, O_NONBLOCK), fcntl(p[1], F_SETFL, O_NONBLOCK);
	while (calls--) {
		long nr = rnd() % 470;
		if (skip(nr))
			continue;
		if (rnd() % 4 == 0)
			fill();
		uint64_t a[6];
		for (int i = 0; i < 6; i++)
			a[i] = argument();
		syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	state = argc > 1 ? strtoull(argv[1], 0, 0) * 2654435761u + 88172645463325252ULL : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 5;
	struct timespec t0, t;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	if (chdir("/tmp"))
		return 2;
	int n = 0;
	do {
		uint64_t seed = rnd();
		pid_t c = fork();
		if (c == 0) {
			setpgid(0, 0);
			state = seed | 1;
			area = mmap(0, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			freopen("/dev/null", "w", stdout);
			freopen("/dev/null", "w", stderr);
			child(300);
		}
		if (c < 0)
			return 3;
		for (int i = 0; i < 3000; i++) {
			pid_t w = waitpid(c, 0, WNOHANG);
			if (w == c)
				break;
			if (w < 0 && errno != EINTR)
				return 4;
			usleep(1000);
			if (i == 2999)
				kill(c, SIGKILL), waitpid(c, 0, 0);
		}
		kill(-c, SIGKILL);
		n++;
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while (t.tv_sec - t0.tv_sec + (t.tv_nsec - t0.tv_nsec) / 1e9 < seconds);
	printf("survived %d children\n", n);
	return 0;
}
