// Fairness: many threads that compute, call the kernel, or hand a byte or a futex to and fro, all at once; prints how much
// each kind did in all, and the least of a thread beside the mean of its kind, in percent.
// Usage: sched [milliseconds] [threads of each kind]
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { COMPUTE, CALL, PIPE, FUTEX, KINDS };
static const char *names[] = {"compute", "syscall", "pipe", "futex"};
static volatile int stop;

struct job {
	int kind, in, out;
	volatile uint32_t *word;
	uint32_t me;
	volatile uint64_t n;
	uint64_t before;
	char pad[64];
};

static void *work(void *arg)
{
	struct job *j = arg;
	char b = 0;
	struct timespec tick = {0, 100000000};
	while (!stop) {
		switch (j->kind) {
		case COMPUTE:
			for (volatile int i = 0; i < 10000; i++)
				;
			break;
		case CALL:
			syscall(SYS_getppid);
			break;
		case PIPE:
			if (write(j->out, &b, 1) != 1 || read(j->in, &b, 1) != 1)
				return 0;
			break;
		case FUTEX:
			while (*j->word != j->me && !stop)
				syscall(SYS_futex, j->word, FUTEX_WAIT_PRIVATE, !j->me, &tick, 0, 0);
			*j->word = !j->me;
			syscall(SYS_futex, j->word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
			break;
		}
		j->n++;
	}
	if (j->kind == PIPE)
		close(j->out);
	return 0;
}

int main(int argc, char **argv)
{
	int ms = argc > 1 ? atoi(argv[1]) : 2000, each = (argc > 2 ? atoi(argv[2]) : 16) & ~1;
	struct job *jobs = calloc(KINDS * each, sizeof *jobs);
	pthread_t t;
	static uint32_t words[1024][16];
	int bad = 0;
	if (each > 1024)
		return 1;
	for (int k = 0; k < KINDS; k++)
		for (int i = 0; i < each; i += 2) {
			int a[2], b[2];
			struct job *x = &jobs[k * each + i], *y = x + 1;
			if (k == PIPE && (pipe(a) || pipe(b)))
				return 1;
			*x = (struct job){.kind = k, .in = a[0], .out = b[1], .word = words[i], .me = 0};
			*y = (struct job){.kind = k, .in = b[0], .out = a[1], .word = words[i], .me = 1};
		}
	for (int i = 0; i < KINDS * each; i++)
		if (pthread_create(&t, 0, work, &jobs[i]))
			return 1;
	struct timespec d = {ms / 1000, ms % 1000 * 1000000L}, from, to;
	// Starting them takes a while, too, and those that came first have run already.
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < KINDS * each; i++)
		jobs[i].before = jobs[i].n;
	nanosleep(&d, 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	long took = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
	uint64_t n[KINDS] = {0}, least[KINDS];
	for (int k = 0; k < KINDS; k++) {
		least[k] = -1;
		for (int i = 0; i < each; i++) {
			uint64_t v = jobs[k * each + i].n - jobs[k * each + i].before;
			n[k] += v;
			least[k] = v < least[k] ? v : least[k];
		}
	}
	stop = 1;
	printf("sleep of %d ms took %ld ms\n", ms, took);
	for (int k = 0; k < KINDS; k++) {
		uint64_t share = n[k] ? least[k] * each * 100 / n[k] : 0;
		printf("%s %llu per second, least %llu %%\n", names[k], (unsigned long long)n[k] * 1000 / took, (unsigned long long)share);
		bad |= share < 10;
	}
	puts(bad ? "starved" : "fair");
	fflush(stdout);
	_exit(bad);
}
