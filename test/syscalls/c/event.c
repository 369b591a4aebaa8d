// epoll(7), eventfd(2), timerfd_create(2), signalfd(2), inotify(7), pidfd_open(2).
#include "husk.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <pthread.h>

static struct epoll_event ev[8];
static void add(int e, int fd, unsigned events)
{
	struct epoll_event x = {.events = events, .data.fd = fd};
	OK(epoll_ctl(e, EPOLL_CTL_ADD, fd, &x));
}

CASE(epoll_level)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(e, p[0], EPOLLIN);
	EQ(epoll_wait(e, ev, 8, 0), 0);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(e, ev, 8, -1), 1);
	EQ(ev[0].events, EPOLLIN);
	EQ(ev[0].data.fd, p[0]);
	EQ(epoll_wait(e, ev, 8, 0), 1);
	char c;
	EQ(read(p[0], &c, 1), 1);
	EQ(epoll_wait(e, ev, 8, 0), 0);
}

CASE(epoll_edge)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(e, p[0], EPOLLIN | EPOLLET);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(e, ev, 8, 0), 1);
	EQ(epoll_wait(e, ev, 8, 0), 0);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(e, ev, 8, 0), 1);
}

CASE(epoll_oneshot)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(e, p[0], EPOLLIN | EPOLLONESHOT);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(e, ev, 8, 0), 1);
	EQ(epoll_wait(e, ev, 8, 0), 0);
	struct epoll_event x = {.events = EPOLLIN | EPOLLONESHOT};
	OK(epoll_ctl(e, EPOLL_CTL_MOD, p[0], &x));
	EQ(epoll_wait(e, ev, 8, 0), 1);
}

CASE(epoll_errors)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	struct epoll_event x = {.events = EPOLLIN};
	ERR(epoll_ctl(e, EPOLL_CTL_DEL, p[0], 0), ENOENT);
	ERR(epoll_ctl(e, EPOLL_CTL_MOD, p[0], &x), ENOENT);
	add(e, p[0], EPOLLIN);
	ERR(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &x), EEXIST);
	ERR(epoll_ctl(e, EPOLL_CTL_ADD, e, &x), EINVAL);
	ERR(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &x), EINVAL);
	ERR(epoll_ctl(e, EPOLL_CTL_ADD, 99, &x), EBADF);
	ERR(epoll_ctl(e, EPOLL_CTL_ADD, open("/etc/passwd", O_RDONLY), &x), EPERM);
	ERR(epoll_wait(e, ev, 0, 0), EINVAL);
	ERR(epoll_wait(p[0], ev, 1, 0), EINVAL);
	ERR(epoll_create(0), EINVAL);
	int f = OK(epoll_create1(0));
	add(e, f, EPOLLIN);
	ERR(epoll_ctl(f, EPOLL_CTL_ADD, e, &x), ELOOP);
}

CASE(epoll_close_removes)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(e, p[0], EPOLLIN);
	EQ(write(p[1], "x", 1), 1);
	close(p[0]);
	EQ(epoll_wait(e, ev, 8, 0), 0);
}

CASE(epoll_nested)
{
	int a = OK(epoll_create1(0)), b = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(a, p[0], EPOLLIN);
	add(b, a, EPOLLIN);
	EQ(epoll_wait(b, ev, 8, 0), 0);
	EQ(write(p[1], "x", 1), 1);
	EQ(epoll_wait(b, ev, 8, 100), 1);
	EQ(ev[0].data.fd, a);
}

CASE(epoll_hup_and_wake)
{
	int e = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	add(e, p[0], EPOLLIN);
	pid_t c = CHILD({
		close(p[0]);
		msleep(50);
	});
	close(p[1]);
	EQ(epoll_wait(e, ev, 8, 5000), 1);
	EQ(ev[0].events, EPOLLHUP);
	EQ(REAP(c), 0);
	long long t = now_ms();
	OK(epoll_ctl(e, EPOLL_CTL_DEL, p[0], 0));
	EQ(epoll_wait(e, ev, 8, 40), 0);
	CHECK(now_ms() - t >= 39);
}

CASE(eventfd_counter)
{
	int e = OK(eventfd(3, EFD_NONBLOCK));
	uint64_t v = 5;
	EQ(write(e, &v, 8), 8);
	EQ(read(e, &v, 8), 8);
	EQ(v, 8);
	ERR(read(e, &v, 8), EAGAIN);
	v = -1;
	ERR(write(e, &v, 8), EINVAL);
	v = -2;
	EQ(write(e, &v, 8), 8);
	v = 1;
	ERR(write(e, &v, 8), EAGAIN);
	ERR(write(e, &v, 4), EINVAL);
	ERR(read(e, &v, 4), EINVAL);
	e = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	EQ(read(e, &v, 8), 8);
	EQ(v, 1);
	EQ(read(e, &v, 8), 8);
	ERR(read(e, &v, 8), EAGAIN);
}

CASE(eventfd_blocks)
{
	int e = OK(eventfd(0, 0));
	pid_t c = CHILD({
		msleep(30);
		uint64_t v = 7;
		EQ(write(e, &v, 8), 8);
	});
	uint64_t v;
	EQ(read(e, &v, 8), 8);
	EQ(v, 7);
	EQ(REAP(c), 0);
}

CASE(timerfd)
{
	int t = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	uint64_t n;
	ERR(read(t, &n, 8), EAGAIN);
	struct itimerspec s = {{0, 10000000}, {0, 10000000}}, o;
	long long start = now_ms();
	OK(timerfd_settime(t, 0, &s, 0));
	msleep(55);
	EQ(read(t, &n, 8), 8);
	CHECK(n >= 4 && n <= (now_ms() - start) / 10 + 1);
	OK(timerfd_gettime(t, &o));
	EQ(o.it_interval.tv_nsec, 10000000);
	struct pollfd f = {t, POLLIN};
	EQ(poll(&f, 1, 1000), 1);
	s = (struct itimerspec){0};
	OK(timerfd_settime(t, 0, &s, 0));
	EQ(poll(&f, 1, 30), 0);
	ERR(timerfd_create(99, 0), EINVAL);
	s.it_value.tv_nsec = 1000000000;
	ERR(timerfd_settime(t, 0, &s, 0), EINVAL);
}

CASE(timerfd_absolute_in_the_past)
{
	int t = OK(timerfd_create(CLOCK_REALTIME, 0));
	struct itimerspec s = {{0, 0}, {1, 0}};
	OK(timerfd_settime(t, TFD_TIMER_ABSTIME, &s, 0));
	uint64_t n;
	EQ(read(t, &n, 8), 8);
	EQ(n, 1);
}

CASE(signalfd_reads)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, 0));
	int s = OK(signalfd(-1, &m, SFD_NONBLOCK));
	struct signalfd_siginfo i;
	ERR(read(s, &i, sizeof i), EAGAIN);
	raise(SIGUSR1);
	struct pollfd f = {s, POLLIN};
	EQ(poll(&f, 1, 1000), 1);
	EQ(read(s, &i, sizeof i), sizeof i);
	EQ(i.ssi_signo, SIGUSR1);
	EQ(i.ssi_pid, getpid());
	ERR(read(s, &i, 10), EINVAL);
}

CASE(inotify_events)
{
	char *d = tmpdir();
	int n = OK(inotify_init1(IN_NONBLOCK));
	int w = OK(inotify_add_watch(n, d, IN_ALL_EVENTS));
	CHECK(w >= 1);
	int fd = OK(open("new", O_CREAT | O_RDWR, 0600));
	EQ(write(fd, "x", 1), 1);
	close(fd);
	OK(rename("new", "old"));
	OK(unlink("old"));
	char b[4096] __attribute__((aligned(8)));
	ssize_t len = OK(read(n, b, sizeof b));
	unsigned want[] = {IN_CREATE, IN_OPEN, IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE};
	unsigned i = 0;
	for (char *q = b; q < b + len; i++) {
		struct inotify_event *e = (void *)q;
		CHECK(i < 7);
		EQ(e->mask, want[i]);
		CHECK(!strcmp(e->name, i < 5 ? "new" : "old"));
		q += sizeof *e + e->len;
	}
	EQ(i, 7);
	OK(inotify_rm_watch(n, w));
	ERR(inotify_rm_watch(n, w), EINVAL);
	ERR(inotify_add_watch(n, "/no/such", IN_CREATE), ENOENT);
	ERR(inotify_add_watch(n, d, 0), EINVAL);
}

CASE(pidfd)
{
	pid_t c = CHILD(msleep(50); _exit(3));
	int p = OK(syscall(SYS_pidfd_open, c, 0));
	struct pollfd f = {p, POLLIN};
	EQ(poll(&f, 1, 0), 0);
	OK(syscall(SYS_pidfd_send_signal, p, 0, 0, 0));
	EQ(poll(&f, 1, 5000), 1);
	EQ(WEXITSTATUS(REAP(c)), 3);
	ERR(syscall(SYS_pidfd_send_signal, p, 0, 0, 0), ESRCH);
	ERR(syscall(SYS_pidfd_open, 999999, 0), ESRCH);
	ERR(syscall(SYS_pidfd_open, -1, 0), EINVAL);
}

/* A directory /proc/PID is as good as a pidfd for signals. */
CASE(pidfd_send_signal_proc)
{
	pid_t c = CHILD(for (;;) pause());
	char name[40];
	sprintf(name, "/proc/%d", c);
	int path = OK(open(name, O_PATH | O_DIRECTORY)), p = OK(open(name, O_DIRECTORY));
	ERR(syscall(SYS_pidfd_send_signal, path, 0, 0, 0), EBADF);
	ERR(syscall(SYS_pidfd_send_signal, p, 77, 0, 0), EINVAL);
	OK(syscall(SYS_pidfd_send_signal, p, 0, 0, 0));
	sprintf(name, "/proc/%d/task/%d", c, c);
	int task = OK(open(name, O_DIRECTORY)), root = OK(open("/proc", O_DIRECTORY));
	ERR(syscall(SYS_pidfd_send_signal, task, 0, 0, 0), EBADF);
	ERR(syscall(SYS_pidfd_send_signal, root, 0, 0, 0), EBADF);
	OK(syscall(SYS_pidfd_send_signal, p, SIGTERM, 0, 0));
	EQ(WTERMSIG(REAP(c)), SIGTERM);
	ERR(syscall(SYS_pidfd_send_signal, p, 0, 0, 0), ESRCH);
}

CASE(pidfd_getfd)
{
	int p[2];
	OK(pipe(p));
	int q = OK(dup2(p[1], 77));
	pid_t c = CHILD(for (;;) pause());
	close(q);
	int pf = OK(syscall(SYS_pidfd_open, c, 0));
	int fd = OK(syscall(SYS_pidfd_getfd, pf, 77, 0));
	EQ(write(fd, "x", 1), 1);
	char b;
	EQ(read(p[0], &b, 1), 1);
	ERR(syscall(SYS_pidfd_getfd, pf, 78, 0), EBADF);
	kill(c, SIGKILL);
	REAP(c);
}

static void *wake_all(void *x)
{
	uint64_t v = 1;
	msleep(50);
	if (write(*(int *)x, &v, 8) != 8)
		_exit(1);
	return 0;
}

CASE(epoll_waits_in_thread)
{
	int e = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
	add(e, fd, EPOLLIN);
	pthread_t t;
	pthread_create(&t, 0, wake_all, &fd);
	EQ(epoll_wait(e, ev, 8, 5000), 1);
	pthread_join(t, 0);
}
