// A minimal test frame: CASE(name) { ... } defines a case, CHECK and friends end it at the first
// failure. Every case runs in a forked child with a time limit, so that one crash costs one case.
// Usage: PROGRAM [-l] [-n] [case...]   -l lists the cases, -n runs them without forking.
#ifndef HUSK_H
#define HUSK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct husk_case {
	const char *name;
	void (*run)(void);
	struct husk_case *next;
};
static struct husk_case *husk_first, **husk_last = &husk_first;

#define CASE(n)                                                          \
	static void case_##n(void);                                      \
	static struct husk_case husk_##n = {#n, case_##n, 0};            \
	__attribute__((constructor)) static void husk_reg_##n(void)      \
	{                                                                \
		*husk_last = &husk_##n;                                  \
		husk_last = &husk_##n.next;                              \
	}                                                                \
	static void case_##n(void)

// A case that cannot run here (native privileges, kernel version) says why; the harness counts it as
// skipped only when it is skipped on the host, too.
#define SKIP(why)                                                        \
	do {                                                             \
		printf("skip: %s ", why);                                \
		fflush(stdout);                                          \
		_exit(77);                                               \
	} while (0)

#define FAIL(...)                                                        \
	do {                                                             \
		int e_ = errno;                                          \
		printf("%s:%d: ", __FILE__, __LINE__);                   \
		printf(__VA_ARGS__);                                     \
		printf(" (errno %d %s) ", e_, strerror(e_));             \
		fflush(stdout);                                          \
		_exit(1);                                                \
	} while (0)

// CHECK: the expression holds. OK: the call does not return -1; its value. ERR: it fails with that errno.
#define CHECK(x)                                                         \
	do {                                                             \
		if (!(x))                                                \
			FAIL("%s", #x);                                  \
	} while (0)
#define EQ(a, b)                                                         \
	do {                                                             \
		long long a_ = (long long)(a), b_ = (long long)(b);      \
		if (a_ != b_)                                            \
			FAIL("%s is %lld, want %s = %lld", #a, a_, #b, b_); \
	} while (0)
#define OK(x)                                                            \
	({                                                               \
		long long r_ = (long long)(x);                           \
		if (r_ == -1)                                            \
			FAIL("%s failed", #x);                           \
		r_;                                                      \
	})
#define ERR(x, e)                                                        \
	do {                                                             \
		errno = 0;                                               \
		long long r_ = (long long)(x);                           \
		if (r_ != -1 || errno != (e))                            \
			FAIL("%s gave %lld, want -1 with %s", #x, r_, #e); \
	} while (0)

// child runs code in a forked child and checks its exit status.
#define CHILD(...)                                                       \
	({                                                               \
		pid_t c_ = fork();                                       \
		if (c_ == 0) {                                           \
			__VA_ARGS__;                                     \
			_exit(0);                                        \
		}                                                        \
		CHECK(c_ > 0);                                           \
		c_;                                                      \
	})
// REAP waits for a child and gives its wait status.
static inline int REAP(pid_t pid)
{
	int s = 0;
	pid_t r;
	while ((r = waitpid(pid, &s, 0)) < 0 && errno == EINTR)
		;
	if (r != pid)
		FAIL("waitpid %d", pid);
	return s;
}

static inline void msleep(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static inline long long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// tmpdir makes a fresh directory and enters it.
static inline char *tmpdir(void)
{
	static char d[64];
	strcpy(d, "/tmp/husk.XXXXXX");
	if (!mkdtemp(d) || chdir(d))
		FAIL("mkdtemp %s", d);
	return d;
}

static inline int put_file(const char *name, const char *text)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

#ifndef HUSK_CASE_SECONDS
#define HUSK_CASE_SECONDS 20
#endif
// LIMIT gives the case that runs another time limit, in seconds. Shared by main and the case.
static volatile int *husk_limit;
#define LIMIT(seconds) (*husk_limit = (seconds))

// husk_wait waits for the end of a case; 0 if it takes too long. The time is that which passes while this process is able to run: a
// machine that stands still makes no case late.
static inline int husk_wait(pid_t p, int *status)
{
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	for (int quarters = 0; waitpid(p, status, WNOHANG) == 0;) {
		struct timespec t = {0, 250000000};
		if (sigtimedwait(&chld, 0, &t) < 0 && errno == EAGAIN && ++quarters >= 4 * *husk_limit)
			return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	int fork_cases = 1, failed = 0, ran = 0, i = 1;
	setvbuf(stdout, 0, _IONBF, 0);
	signal(SIGHUP, SIG_DFL); // nohup(1) ignores it
	signal(SIGCHLD, SIG_DFL);
	husk_limit = mmap(0, sizeof *husk_limit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "-l")) {
			for (struct husk_case *c = husk_first; c; c = c->next)
				printf("%s\n", c->name);
			return 0;
		}
		if (!strcmp(argv[i], "-n"))
			fork_cases = 0;
	}
	for (struct husk_case *c = husk_first; c; c = c->next) {
		int want = i == argc;
		for (int j = i; j < argc; j++)
			want |= !strcmp(argv[j], c->name);
		if (!want)
			continue;
		ran++;
		printf("%s: ", c->name);
		if (!fork_cases) {
			c->run();
			printf("ok\n");
			continue;
		}
		sigset_t chld, old;
		sigemptyset(&chld);
		sigaddset(&chld, SIGCHLD);
		sigprocmask(SIG_BLOCK, &chld, &old);
		LIMIT(HUSK_CASE_SECONDS);
		pid_t p = fork();
		if (p == 0) {
			sigprocmask(SIG_SETMASK, &old, 0);
			setpgid(0, 0);
			c->run();
			_exit(0);
		}
		int s = 0;
		int late = !husk_wait(p, &s);
		sigprocmask(SIG_SETMASK, &old, 0);
		if (late)
			kill(p, SIGKILL);
		kill(-p, SIGKILL);
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
		if (late) {
			failed++;
			printf("FAIL: takes too long\n");
		} else if (WIFEXITED(s) && WEXITSTATUS(s) == 0)
			printf("ok\n");
		else if (WIFEXITED(s) && WEXITSTATUS(s) == 77)
			printf("\n");
		else {
			failed++;
			if (WIFSIGNALED(s))
				printf("FAIL by signal %d\n", WTERMSIG(s));
			else
				printf("FAIL exit %d\n", WEXITSTATUS(s));
		}
	}
	printf("%d cases, %d failed\n", ran, failed);
	return failed != 0;
}
#endif
