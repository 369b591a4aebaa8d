// How much gets done under different hand-offs: answers a line "getpid|mixed|pipe THREADS MILLISECONDS" with steps per second of all threads.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 256 };
static volatile int stop;
static char what;
static struct job {
	int in, out;
	volatile uint64_t n;
	char pad[64];
} jobs[MOST];

static void *work(void *arg)
{
	struct job *j = arg;
	char b = 0;
	unsigned r = j - jobs;
	while (!stop) {
		switch (what) {
		case 'm': // 1 to 40 us of work between calls
			r = r * 1103515245 + 12345;
			for (volatile unsigned i = 0, n = 1000 + (r >> 16) % 40000; i < n; i++)
				;
			/* fallthrough */
		case 'g':
			syscall(SYS_getpid);
			break;
		case 'p':
			if (write(j->out, &b, 1) != 1 || read(j->in, &b, 1) != 1)
				return 0;
		}
		j->n++;
	}
	if (what == 'p')
		close(j->out);
	return 0;
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(void)
{
	char name[16];
	int threads, ms;
	pthread_t t[MOST];
	while (scanf("%15s %d %d", name, &threads, &ms) == 3) {
		if (threads < 1 || threads > MOST)
			return 1;
		what = name[0], stop = 0;
		for (int i = 0; i < threads; i += 2) {
			int a[2] = {-1, -1}, b[2] = {-1, -1};
			if (what == 'p' && (pipe(a) || pipe(b)))
				return 1;
			jobs[i] = (struct job){.in = a[0], .out = b[1]};
			jobs[i + 1] = (struct job){.in = b[0], .out = a[1]};
		}
		for (int i = 0; i < threads; i++)
			if (pthread_create(&t[i], 0, work, &jobs[i]))
				return 1;
		uint64_t n = 0;
		usleep(20000); // until all run
		double from = seconds();
		for (int i = 0; i < threads; i++)
			n -= jobs[i].n;
		usleep(ms * 1000);
		for (int i = 0; i < threads; i++)
			n += jobs[i].n;
		double took = seconds() - from;
		stop = 1;
		for (int i = 0; i < threads; i++)
			pthread_join(t[i], 0);
		for (int i = 0; what == 'p' && i < threads; i++)
			close(jobs[i].in);
		printf("%.1f\n", n / took);
		fflush(stdout);
	}
}
