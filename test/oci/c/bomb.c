// Bombs of processes, threads and programs. The first process watches: every 100 ms it prints how often it went well, failed with EAGAIN, and
// failed otherwise (and how). Usage: bomb fork [PROCESSES], bomb thread|exec, or bomb sh COMMAND. Never run it on a host.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct shared {
	volatile unsigned long ok, again, other, last;
} *s;

static void failed(int err)
{
	__sync_fetch_and_add(err == EAGAIN ? &s->again : &s->other, 1);
	if (err != EAGAIN)
		s->last = err;
	usleep(1000);
}

static void *trap(void *arg);

// bomb makes processes until there are so many, which then work.
static void bomb(unsigned long most)
{
	for (;;)
		if (s->ok >= most)
			trap(0);
		else if (fork() < 0)
			failed(errno);
		else
			__sync_fetch_and_add(&s->ok, 1);
}

// trap enters the kernel in every way that a thread can: calls, faults, a new mapping.
static void *trap(void *arg)
{
	for (;;) {
		syscall(SYS_getppid);
		char *p = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED)
			p[1] = p[1 << 15] = 1, munmap(p, 1 << 16);
	}
	return 0;
}

static int start(void *(*f)(void *))
{
	pthread_t t;
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	return pthread_create(&t, &a, f, 0);
}

static void *threads(void *arg)
{
	for (int n = 0;; n++) {
		// Each makes two and then works.
		int err = n < 2 || arg ? start(threads) : (trap(0), 0);
		if (err)
			failed(err);
		else
			__sync_fetch_and_add(&s->ok, 1);
	}
}

// again executes the program anew while other threads are in the midst of something.
static void again(void)
{
	for (int i = 0; i < 3; i++) {
		int err = start(trap);
		if (err)
			failed(err);
	}
	usleep(rand() % 2000);
	__sync_fetch_and_add(&s->ok, 1);
	execl("/proc/self/exe", "bomb", "again", NULL);
	failed(errno);
	_exit(1);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	int repeat = !strcmp(mode, "again");
	// The counters survive execve(2) in a descriptor.
	if (!repeat) {
		int fd = memfd_create("counters", 0);
		if (fd < 0 || dup2(fd, 9) != 9 || ftruncate(9, 4096))
			return 1;
	}
	s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 9, 0);
	if (s == MAP_FAILED)
		return 1;
	srand(getpid() + s->ok);
	if (repeat)
		again();
	pid_t p = fork();
	if (!p) {
		if (!strcmp(mode, "fork"))
			bomb(argc > 2 ? atoi(argv[2]) : -1ul);
		if (!strcmp(mode, "thread"))
			threads((void *)1);
		if (!strcmp(mode, "exec")) {
			for (int i = 0; i < 4; i++)
				if (fork() == 0)
					again();
			pause();
		}
		if (!strcmp(mode, "sh"))
			execl("/bin/sh", "sh", "-c", argv[2], NULL);
		_exit(1);
	}
	for (;;) {
		printf("%lu %lu %lu %lu\n", s->ok, s->again, s->other, s->last);
		fflush(stdout);
		usleep(100000);
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
	}
}
