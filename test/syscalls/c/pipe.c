// pipe(2), poll(2), select(2).
#include "husk.h"
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/uio.h>

static int p[2];
static void mk(int flags) { OK(pipe2(p, flags)); }

CASE(basic)
{
	mk(0);
	char b[10];
	EQ(write(p[1], "hello", 5), 5);
	EQ(read(p[0], b, 3), 3);
	EQ(read(p[0], b, 10), 2);
	ERR(lseek(p[0], 0, SEEK_SET), ESPIPE);
	ERR(pread(p[0], b, 1, 0), ESPIPE);
	ERR(write(p[0], b, 1), EBADF);
	ERR(read(p[1], b, 1), EBADF);
	ERR(pipe2(p, 0x1), EINVAL);
}

CASE(end_of_file_and_epipe)
{
	mk(0);
	char b;
	close(p[1]);
	EQ(read(p[0], &b, 1), 0);
	mk(0);
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	ERR(write(p[1], "x", 1), EPIPE);
}

CASE(nonblocking)
{
	mk(O_NONBLOCK);
	char b[70000];
	ERR(read(p[0], b, 1), EAGAIN);
	EQ(write(p[1], b, 70000), 65536);
	ERR(write(p[1], b, 1), EAGAIN);
	EQ(read(p[0], b, 4096), 4096);
	EQ(write(p[1], b, 4096), 4096);
}

CASE(capacity)
{
	mk(0);
	EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
	EQ(fcntl(p[1], F_GETPIPE_SZ), 8192);
	int n;
	EQ(write(p[1], "abc", 3), 3);
	OK(ioctl(p[0], FIONREAD, &n));
	EQ(n, 3);
}

CASE(blocked_writer_continues)
{
	mk(0);
	pid_t c = CHILD({
		close(p[0]);
		static char big[300000];
		for (int i = 0; i < 300000; i++)
			big[i] = i % 251;
		EQ(write(p[1], big, 300000), 300000);
	});
	close(p[1]);
	static unsigned char b[7777];
	long n = 0, r;
	while ((r = read(p[0], b, sizeof b)) > 0)
		for (int i = 0; i < r; i++, n++)
			EQ(b[i], n % 251);
	EQ(n, 300000);
	EQ(REAP(c), 0);
}

CASE(small_writes_are_atomic)
{
	mk(0);
	for (int k = 0; k < 4; k++)
		CHILD({
			char b[100];
			memset(b, 'a' + k, 100);
			for (int i = 0; i < 500; i++)
				EQ(write(p[1], b, 100), 100);
		});
	close(p[1]);
	char b[100];
	long n = 0;
	for (;;) {
		size_t have = 0;
		while (have < 100) {
			ssize_t r = read(p[0], b + have, 100 - have);
			if (r <= 0)
				break;
			have += r;
		}
		if (!have)
			break;
		for (int i = 1; i < 100; i++)
			EQ(b[i], b[0]);
		n += have;
	}
	EQ(n, 200000);
}

CASE(packet_mode)
{
	mk(O_DIRECT);
	char b[10];
	EQ(write(p[1], "abc", 3), 3);
	EQ(write(p[1], "de", 2), 2);
	EQ(read(p[0], b, 2), 2);
	EQ(read(p[0], b, 10), 2);
	CHECK(b[0] == 'd');
}

CASE(poll_states)
{
	mk(0);
	struct pollfd f[3] = {{p[0], POLLIN}, {p[1], POLLOUT}, {-1, POLLIN}};
	EQ(poll(f, 3, 0), 1);
	EQ(f[0].revents, 0);
	EQ(f[1].revents, POLLOUT);
	EQ(write(p[1], "x", 1), 1);
	EQ(poll(f, 1, -1), 1);
	EQ(f[0].revents, POLLIN);
	close(p[1]);
	EQ(poll(f, 1, -1), 1);
	EQ(f[0].revents, POLLIN | POLLHUP);
	f[0].fd = 99;
	EQ(poll(f, 1, -1), 1);
	EQ(f[0].revents, POLLNVAL);
	mk(0);
	close(p[0]);
	f[0] = (struct pollfd){p[1], POLLOUT};
	EQ(poll(f, 1, 0), 1);
	EQ(f[0].revents, POLLOUT | POLLERR);
}

CASE(poll_timeout)
{
	mk(0);
	struct pollfd f = {p[0], POLLIN};
	long long t = now_ms();
	EQ(poll(&f, 1, 50), 0);
	CHECK(now_ms() - t >= 49);
	t = now_ms();
	EQ(poll(0, 0, 30), 0);
	CHECK(now_ms() - t >= 29);
	struct timespec ts = {0, -1};
	ERR(ppoll(&f, 1, &ts, 0), EINVAL);
}

CASE(poll_wakes)
{
	mk(0);
	pid_t c = CHILD({
		msleep(50);
		EQ(write(p[1], "x", 1), 1);
	});
	struct pollfd f = {p[0], POLLIN};
	EQ(poll(&f, 1, 5000), 1);
	EQ(REAP(c), 0);
}

CASE(poll_regular_file)
{
	struct pollfd f = {OK(open("/proc/self/exe", O_RDONLY)), POLLIN | POLLOUT};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN | POLLOUT);
}

CASE(select_sets)
{
	mk(0);
	fd_set r, w;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	struct timeval tv = {5, 0};
	EQ(select(p[1] + 1, &r, &w, 0, &tv), 1);
	CHECK(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
	FD_SET(p[0], &r);
	tv = (struct timeval){0, 30000};
	EQ(select(p[1] + 1, &r, 0, 0, &tv), 0);
	EQ(tv.tv_usec, 0);
	close(p[1]);
	FD_SET(p[0], &r);
	EQ(select(p[0] + 1, &r, 0, 0, 0), 1);
	FD_ZERO(&r);
	FD_SET(50, &r);
	ERR(select(51, &r, 0, 0, 0), EBADF);
	ERR(select(-1, 0, 0, 0, 0), EINVAL);
}

static volatile int hits;
static void on(int s) { hits++; }

CASE(ppoll_signal_mask)
{
	mk(0);
	signal(SIGUSR1, on);
	sigset_t m, none;
	sigemptyset(&none);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigprocmask(SIG_BLOCK, &m, 0);
	raise(SIGUSR1);
	struct pollfd f = {p[0], POLLIN};
	ERR(ppoll(&f, 1, 0, &none), EINTR);
	EQ(hits, 1);
	sigset_t now;
	sigprocmask(SIG_BLOCK, 0, &now);
	CHECK(sigismember(&now, SIGUSR1));
}

CASE(tee_and_vmsplice)
{
	mk(0);
	int q[2];
	OK(pipe(q));
	struct iovec v = {"hello", 5};
	EQ(vmsplice(p[1], &v, 1, 0), 5);
	EQ(tee(p[0], q[1], 10, 0), 5);
	char b[10];
	EQ(read(p[0], b, 10), 5);
	EQ(read(q[0], b, 10), 5);
	CHECK(!memcmp(b, "hello", 5));
}

CASE(ping_pong)
{
	int q[2];
	mk(0);
	OK(pipe(q));
	pid_t c = CHILD({
		char x;
		for (int i = 0; i < 2000; i++) {
			EQ(read(p[0], &x, 1), 1);
			EQ(write(q[1], &x, 1), 1);
		}
	});
	char x = 1;
	for (int i = 0; i < 2000; i++) {
		EQ(write(p[1], &x, 1), 1);
		EQ(read(q[0], &x, 1), 1);
	}
	EQ(REAP(c), 0);
}

CASE(reopen_through_proc)
{
	char path[40], b[4];
	mk(0);
	EQ(write(p[1], "ab", 2), 2);
	close(p[1]);
	sprintf(path, "/proc/self/fd/%d", p[0]);
	int r = OK(open(path, O_RDONLY)); /* no writer: does not wait for one */
	EQ(read(r, b, 4), 2);
	EQ(read(r, b, 4), 0);
	int w = OK(open(path, O_WRONLY));
	close(p[0]);
	close(r);
	sprintf(path, "/proc/self/fd/%d", w);
	w = OK(open(path, O_WRONLY | O_NONBLOCK)); /* no reader: no ENXIO either */
	r = OK(open(path, O_RDONLY));
	EQ(write(w, "x", 1), 1);
	EQ(read(r, b, 4), 1);
}

/* A reader that waits is woken soon, whatever the writer does next but for waiting itself. */
static void go_on(int how, volatile int *got)
{
	switch (how) {
	case 0: /* compute */
		while (!*got)
			;
		break;
	case 1: /* call */
		while (!*got)
			syscall(SYS_getppid);
		break;
	case 2: /* call what takes no time */
		while (!*got)
			lseek(0, 0, SEEK_CUR);
		break;
	case 3:
		raise(SIGSTOP);
		break;
	case 4:
		syscall(SYS_exit, 0);
	case 5:
		kill(getpid(), SIGKILL);
	case 6: {
		char *argv[] = {"sleep", "0.01", 0};
		execvp("sleep", argv);
		FAIL("exec");
	}
	}
}

CASE(wakes_though_the_writer_goes_on)
{
	volatile int *got = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mk(0);
	for (int how = 0; how < 7; how++)
		for (int i = 0; i < 20; i++) {
			*got = 0;
			pid_t c = CHILD({
				if (i & 1)
					usleep(2000); /* so that the reader sleeps */
				EQ(write(p[1], "x", 1), 1);
				go_on(how, got);
			});
			char x;
			EQ(read(p[0], &x, 1), 1);
			*got = 1;
			int st = 0;
			if (how == 3) {
				EQ(waitpid(c, &st, WUNTRACED), c);
				CHECK(WIFSTOPPED(st));
				OK(kill(c, SIGCONT));
			}
			EQ(waitpid(c, &st, 0), c);
			EQ(st, how == 5 ? SIGKILL : 0);
		}
}

static void *write_and_end(void *fd)
{
	EQ(write(*(int *)fd, "x", 1), 1);
	return 0;
}

CASE(wakes_though_the_thread_ends)
{
	mk(0);
	for (int i = 0; i < 200; i++) {
		pthread_t t;
		char x;
		EQ(pthread_create(&t, 0, write_and_end, &p[1]), 0);
		EQ(read(p[0], &x, 1), 1);
		EQ(pthread_join(t, 0), 0);
	}
}

static char *pages(int n) { return mmap(0, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0); }

static struct {
	pthread_t t;
	char *to;
	size_t n;
	ssize_t got;
	int err;
} reading;

static void *reads(void *x)
{
	reading.got = read(p[0], reading.to, reading.n);
	reading.err = errno;
	return x;
}

/* A thread blocks in a read to memory that was used before. */
static void block_in_read(char *to, size_t n)
{
	memset(to, 1, n);
	reading.to = to, reading.n = n;
	EQ(pthread_create(&reading.t, 0, reads, 0), 0);
	msleep(20);
}

CASE(blocked_reader_with_pieces)
{
	mk(0);
	char *b = pages(8), *w = pages(4);
	memset(b, 1, 8 * 4096);
	pid_t c = CHILD({
		struct iovec v[] = {{b + 10, 5}, {b, 0}, {b + 4000, 5000}, {b + 12000, 9000}};
		EQ(readv(p[0], v, 4), 10000);
		for (int i = 0; i < 10000; i++)
			EQ((unsigned char)(i < 5 ? b[10 + i] : i < 5005 ? b[4000 + i - 5] : b[12000 + i - 5005]), i % 251);
		EQ(b[9], 1);
		EQ(b[15], 1);
		EQ(b[9000], 1);
		EQ(b[12000 + 4995], 1);
	});
	for (int i = 0; i < 10000; i++)
		w[i] = i % 251;
	msleep(20);
	struct iovec v[] = {{w, 1}, {w + 1, 4999}, {w + 5000, 5000}};
	EQ(writev(p[1], v, 3), 10000);
	EQ(REAP(c), 0);
}

CASE(buffer_changes_under_a_blocked_reader)
{
	mk(0);
	char *b = pages(4), *w = pages(4), x[200];
	memset(w, 'w', 4 * 4096);
	block_in_read(b, 4 * 4096);
	OK(munmap(b, 4 * 4096));
	EQ(write(p[1], w, 100), 100);
	EQ(pthread_join(reading.t, 0), 0);
	EQ(reading.got, -1);
	EQ(reading.err, EFAULT);
	EQ(read(p[0], x, 200), 100); /* nothing is lost */

	b = pages(4);
	block_in_read(b, 4 * 4096);
	OK(mprotect(b, 4 * 4096, PROT_READ));
	EQ(write(p[1], w, 100), 100);
	EQ(pthread_join(reading.t, 0), 0);
	EQ(reading.got, -1);
	EQ(reading.err, EFAULT);
	EQ(b[0], 1);
	EQ(read(p[0], x, 200), 100);

	b = pages(4);
	block_in_read(b, 4 * 4096);
	CHECK(mmap(b, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == b);
	EQ(write(p[1], w, 5000), 5000);
	EQ(pthread_join(reading.t, 0), 0);
	EQ(reading.got, 5000);
	EQ(b[0], 'w');
	EQ(b[4999], 'w');
	EQ(b[5000], 0);
}

CASE(fork_beside_a_blocked_reader)
{
	mk(0);
	int q[2];
	OK(pipe(q));
	char *b = pages(4);
	for (int i = 0; i < 20; i++) {
		block_in_read(b, 4 * 4096);
		pid_t c = CHILD({
			char x;
			EQ(read(q[0], &x, 1), 1);
			for (int k = 0; k < 4 * 4096; k++)
				EQ(b[k], 1);
		});
		char w[6000] = {};
		EQ(write(p[1], w, 6000), 6000);
		EQ(pthread_join(reading.t, 0), 0);
		EQ(reading.got, 6000);
		EQ(b[0], 0);
		EQ(write(q[1], "x", 1), 1);
		EQ(REAP(c), 0);
	}
}

static volatile int caught;
static void catches(int s) { caught++; }

/* A read that has got something gives that, whatever signal comes. */
CASE(signal_after_a_write)
{
	mk(0);
	struct sigaction a = {.sa_handler = catches};
	OK(sigaction(SIGUSR1, &a, 0));
	pid_t self = getpid();
	char b[100];
	for (int i = 0; i < 50; i++) {
		int n = 0, old = caught;
		pid_t c = CHILD({
			usleep(i % 3 * 1000);
			EQ(write(p[1], "abc", 3), 3);
			OK(kill(self, SIGUSR1));
			EQ(write(p[1], "defg", 4), 4);
		});
		while (n < 7) {
			int k = read(p[0], b, 100);
			if (k < 0)
				EQ(errno, EINTR);
			else
				n += k;
		}
		EQ(n, 7);
		EQ(REAP(c), 0);
		EQ(caught, old + 1);
	}
}

/* What an interrupted write says is what arrives. */
CASE(interrupted_large_writes)
{
	mk(0);
	struct sigaction a = {.sa_handler = catches};
	OK(sigaction(SIGUSR1, &a, 0));
	static char w[1 << 20], b[70000];
	for (int i = 0; i < 1 << 20; i++)
		w[i] = i % 251;
	pid_t self = getpid(), c = CHILD({
		close(p[1]);
		long n = 0;
		int k, i = 0;
		while ((k = read(p[0], b, 1 + i * 7919 % 69999)) > 0) {
			for (int j = 0; j < k; j++)
				EQ((unsigned char)b[j], (n + j) % (1 << 20) % 251);
			n += k;
			if (++i % 20 == 0)
				OK(kill(self, SIGUSR1));
		}
		EQ(n, 8 << 20);
	});
	for (int n = 0; n < 8 << 20;) {
		int k = write(p[1], w + n % (1 << 20), (1 << 20) - n % (1 << 20));
		if (k < 0)
			EQ(errno, EINTR);
		else
			n += k;
	}
	close(p[1]);
	EQ(REAP(c), 0);
	CHECK(caught);
}

/* Readers that are killed lose no more than what they have read: records stay whole for the next. */
CASE(killed_readers)
{
	mk(0);
	char b[64 * 100];
	memset(b, 1, sizeof b);
	for (int i = 0; i < 30; i++) {
		pid_t c = CHILD({
			for (;;)
				read(p[0], b, sizeof b);
		});
		char w[64];
		memset(w, 'a' + i % 26, 64);
		usleep(i % 4 * 300);
		for (int k = 0; k < 300; k++) {
			EQ(write(p[1], w, 64), 64);
			if (k == 200)
				OK(kill(c, SIGKILL));
		}
		EQ(REAP(c), SIGKILL);
		OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
		int n;
		while ((n = read(p[0], b, sizeof b)) > 0) {
			EQ(n % 64, 0);
			for (int k = 0; k < n; k++)
				EQ(b[k], w[0]);
		}
		OK(fcntl(p[0], F_SETFL, 0));
	}
}

/* A writer that is killed has written what was read and what the pipe holds. */
CASE(killed_writers)
{
	static char w[1 << 20], b[5000];
	for (int i = 0; i < 20; i++) {
		mk(0);
		pid_t c = CHILD({
			close(p[0]);
			for (int k = 0; k < 1 << 20; k++)
				w[k] = k % 251;
			write(p[1], w, sizeof w);
		});
		close(p[1]);
		long n = 0;
		int k;
		while ((k = read(p[0], b, sizeof b)) > 0) {
			for (int j = 0; j < k; j++)
				EQ((unsigned char)b[j], (n + j) % 251);
			n += k;
			if (n > 200000 && n < 200000 + 5000)
				OK(kill(c, SIGKILL));
		}
		CHECK(n > 200000 && n <= 1 << 20);
		if (REAP(c) != SIGKILL)
			EQ(n, 1 << 20);
		close(p[0]);
	}
}

/* Who polls, or asks without waiting, sees the rest of a blocked write, too. */
CASE(poll_and_a_blocked_writer)
{
	static char w[300000], b[65536];
	for (int how = 0; how < 3; how++) {
		mk(how == 1 ? O_NONBLOCK : 0);
		OK(fcntl(p[1], F_SETFL, 0));
		pid_t c = CHILD({
			close(p[0]);
			EQ(write(p[1], w, sizeof w), sizeof w);
			pause();
		});
		close(p[1]);
		for (int n = 0; n < sizeof w;) {
			struct pollfd f = {p[0], POLLIN, 0};
			EQ(poll(&f, 1, how == 2 ? 0 : 5000) >= 0, 1);
			if (!(f.revents & POLLIN))
				continue;
			int k = OK(read(p[0], b, how == 2 ? 1000 : sizeof b));
			CHECK(k > 0);
			n += k;
		}
		struct pollfd f = {p[0], POLLIN, 0};
		EQ(poll(&f, 1, 0), 0);
		OK(kill(c, SIGKILL));
		REAP(c);
		close(p[0]);
	}
}

CASE(packets_for_a_blocked_reader)
{
	mk(O_DIRECT);
	char b[9000];
	memset(b, 1, sizeof b);
	pid_t c = CHILD({
		msleep(10);
		EQ(write(p[1], b, 5000), 5000);
		EQ(write(p[1], b, 10), 10);
	});
	EQ(read(p[0], b, sizeof b), 4096);
	EQ(read(p[0], b, sizeof b), 904);
	EQ(read(p[0], b, sizeof b), 10);
	EQ(REAP(c), 0);
}

CASE(splice_and_blocked_ends)
{
	mk(0);
	int q[2];
	OK(pipe(q));
	static char w[200000], b[65536];
	for (int i = 0; i < sizeof w; i++)
		w[i] = i % 251;
	pid_t from = CHILD({ EQ(write(p[1], w, sizeof w), sizeof w); });
	pid_t to = CHILD({
		memset(b, 1, sizeof b);
		close(p[1]);
		close(q[1]);
		int n = 0;
		int k;
		while ((k = OK(read(q[0], b, sizeof b))) > 0) {
			for (int j = 0; j < k; j++)
				EQ((unsigned char)b[j], (n + j) % 251);
			n += k;
		}
		EQ(n, sizeof w);
	});
	msleep(20);
	close(p[1]);
	for (int n = 0; n < sizeof w;) {
		int k = OK(splice(p[0], 0, q[1], 0, 50000, 0));
		CHECK(k > 0);
		n += k;
	}
	close(q[1]);
	EQ(REAP(from), 0);
	EQ(REAP(to), 0);
}

static int in_pipe(void)
{
	int n = -1;
	OK(ioctl(p[0], FIONREAD, &n));
	return n;
}

/* What is written while a reader is stopped is for anybody. */
CASE(stopped_reader)
{
	for (int i = 0; i < 10; i++) {
		mk(0);
		char b[1000], w[100];
		pid_t c = CHILD({
			int n = 0;
			memset(b, 1, sizeof b);
			while (n < 250) { int k = OK(read(p[0], b, 1000)); for (int j = 0; j < k; j++) EQ(b[j], 'w'); n += k; }
			EQ(n, 250);
		});
		msleep(15);
		OK(kill(c, SIGSTOP));
		int s;
		EQ(waitpid(c, &s, WUNTRACED), c);
		CHECK(WIFSTOPPED(s));
		memset(w, 'w', 100);
		EQ(write(p[1], w, 100), 100);
		EQ(in_pipe(), 100);
		if (i & 1) { EQ(read(p[0], b, 50), 50); EQ(write(p[1], w, 50), 50); }
		OK(kill(c, SIGCONT));
		EQ(write(p[1], w, 100), 100);
		msleep(2);
		EQ(write(p[1], w, 50), 50);
		EQ(REAP(c), 0);
		EQ(in_pipe(), 0);
		close(p[0]); close(p[1]);
	}
}
