// Programs that wait: idle server|threads|timer. Each prints "ready" when it does.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

// server serves a socket with epoll; a hundred clients have said something once and keep their connections.
static void server(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/tmp/idle"};
	int l = socket(AF_UNIX, SOCK_STREAM, 0), e = epoll_create1(0), left = 100;
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = l};
	char b[8];
	if (bind(l, (void *)&a, sizeof a) || listen(l, 128) || epoll_ctl(e, EPOLL_CTL_ADD, l, &ev))
		fail("server");
	if (fork() == 0) {
		for (int i = 0; i < 100; i++) {
			int s = socket(AF_UNIX, SOCK_STREAM, 0);
			if (connect(s, (void *)&a, sizeof a) || write(s, "hello", 5) != 5 || read(s, b, 5) != 5)
				fail("client");
		}
		pause();
	}
	for (;;) {
		if (epoll_wait(e, &ev, 1, -1) != 1)
			continue;
		if (ev.data.fd == l) {
			ev.data.fd = accept(l, 0, 0);
			ev.events = EPOLLIN | EPOLLET;
			if (epoll_ctl(e, EPOLL_CTL_ADD, ev.data.fd, &ev))
				fail("epoll_ctl");
		} else if (read(ev.data.fd, b, 5) == 5 && write(ev.data.fd, b, 5) == 5 && --left == 0) {
			ready();
		}
	}
}

static void *rest(void *arg)
{
	if (arg) {
		sleep(100000);
	} else {
		static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
		pthread_mutex_lock(&m); // one has it, the others wait
		pause();
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	if (!strcmp(mode, "server"))
		server();
	if (!strcmp(mode, "threads")) {
		pthread_t t;
		for (long i = 0; i < 50; i++)
			if (pthread_create(&t, 0, rest, (void *)(i % 2)))
				return 1;
		ready();
		pause();
	}
	if (!strcmp(mode, "timer")) {
		int fd = timerfd_create(CLOCK_MONOTONIC, 0);
		struct itimerspec s = {{1, 0}, {1, 0}};
		unsigned long n;
		if (timerfd_settime(fd, 0, &s, 0))
			fail("timerfd");
		ready();
		while (read(fd, &n, sizeof n) == sizeof n)
			;
	}
	return 1;
}
