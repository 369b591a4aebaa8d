// splice(2), tee(2), vmsplice(2), sendfile(2).
#include "husk.h"
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

static int p[2], q[2], s[2];
static char big[300000], buf[300000];

static void pipes(int pflags, int qflags)
{
	OK(pipe2(p, pflags));
	OK(pipe2(q, qflags));
}

static int inside(int fd)
{
	int n = -1;
	OK(ioctl(fd, FIONREAD, &n));
	return n;
}

/* Nothing more fits. */
static void fill(int fd)
{
	int f = OK(fcntl(fd, F_GETFL));
	OK(fcntl(fd, F_SETFL, f | O_NONBLOCK));
	while (write(fd, big, 4096) > 0)
		;
	while (write(fd, big, 1) > 0)
		;
	OK(fcntl(fd, F_SETFL, f));
}

static volatile int alarms, sigpipes;
static void on_alarm(int sig) { alarms++; }
static void on_pipe(int sig) { sigpipes++; }

/* The call waits, and gives up when a signal comes. */
#define BLOCKS(call)                                                                  \
	do {                                                                          \
		struct sigaction a_ = {.sa_handler = on_alarm};                       \
		struct itimerval t_ = {{0, 50000}, {0, 50000}}, z_ = {};              \
		OK(sigaction(SIGALRM, &a_, 0));                                       \
		OK(setitimer(ITIMER_REAL, &t_, 0));                                   \
		ERR(call, EINTR);                                                     \
		OK(setitimer(ITIMER_REAL, &z_, 0));                                   \
	} while (0)

/* Several take from a pipe, one by splice: each record goes to one of them. */
enum { N = 5000, S = 64 };

static void beside_a_reader(int in, int out, int kind)
{
	static int seen[N], b[N * S / 4];
	int r[2];
	pipes(0, 0);
	OK(pipe(r));
	pid_t w = CHILD({
		close(p[0]);
		for (int i = 0; i < N * S / 4; i++)
			b[i] = i / (S / 4);
		for (int n = 0, k; n < N * S; n += k) {
			k = N * S - n < 100 * S ? N * S - n : 100 * S;
			EQ(write(p[1], (char *)b + n, k), k);
		}
	});
	close(p[1]);
	pid_t c[2];
	c[0] = CHILD({
		close(in);
		close(r[0]);
		int k;
		while ((k = OK(splice(p[0], 0, out, 0, S, 0))))
			EQ(k, S);
	});
	c[1] = CHILD({
		close(in);
		close(out);
		int k;
		while ((k = OK(read(p[0], b, S)))) {
			EQ(k, S);
			EQ(write(r[1], b, S), S);
		}
	});
	close(out);
	close(r[1]);
	close(p[0]);
	int n = 0, live = 2;
	struct pollfd f[2] = {{in, POLLIN}, {r[0], POLLIN}};
	while (live) {
		OK(poll(f, 2, -1));
		for (int i = 0; i < 2; i++)
			if (f[i].fd >= 0 && f[i].revents) {
				int k = OK(read(f[i].fd, b, S));
				if (!k && i == 0 && kind == 'f' && REAP(c[0]) == 0) { /* the end only then */
					kind = 0;
					continue;
				}
				if (!k) {
					f[i].fd = -1;
					live--;
					continue;
				}
				EQ(k, S);
				for (int j = 0; j < S / 4; j++)
					EQ(b[j], b[0]);
				if (seen[b[0]]++)
					FAIL("%d twice", b[0]);
				n++;
			}
	}
	EQ(n, N);
	EQ(REAP(w), 0);
	if (kind)
		EQ(REAP(c[0]), 0);
	EQ(REAP(c[1]), 0);
}

CASE(to_a_pipe_beside_a_reader)
{
	int o[2];
	OK(pipe(o));
	beside_a_reader(o[0], o[1], 'p');
}

CASE(to_a_socket_beside_a_reader)
{
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	beside_a_reader(s[0], s[1], 's');
}

CASE(to_a_file_beside_a_reader)
{
	tmpdir();
	int out = OK(open("f", O_CREAT | O_WRONLY, 0600)), in = OK(open("f", O_RDONLY));
	beside_a_reader(in, out, 'f');
}

CASE(what_cannot_be_written_stays)
{
	struct sigaction a = {.sa_handler = on_pipe};
	OK(sigaction(SIGPIPE, &a, 0));
	tmpdir();
	pipes(0, 0);
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	EQ(write(p[1], "abcdef", 6), 6);
	close(q[0]);
	ERR(splice(p[0], 0, q[1], 0, 6, 0), EPIPE);
	EQ(sigpipes, 1);
	EQ(inside(p[0]), 6);
	ERR(tee(p[0], q[1], 6, 0), EPIPE);
	EQ(sigpipes, 2);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	close(s[1]);
	ERR(splice(p[0], 0, s[0], 0, 6, 0), EPIPE);
	EQ(sigpipes, 3);
	EQ(inside(p[0]), 6);
	EQ(write(f, "123", 3), 3);
	EQ(lseek(f, 0, SEEK_SET), 0);
	ERR(splice(f, 0, q[1], 0, 3, 0), EPIPE);
	EQ(lseek(f, 0, SEEK_CUR), 0);
	ERR(sendfile(q[1], f, 0, 3), EPIPE);
	EQ(lseek(f, 0, SEEK_CUR), 0);
	struct iovec v = {buf, 10};
	ERR(vmsplice(q[1], &v, 1, 0), EPIPE);
	EQ(sigpipes, 6);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(write(s[1], "hello", 5), 5);
	ERR(splice(s[0], 0, q[1], 0, 5, 0), EPIPE);
	EQ(read(s[0], buf, 10), 5);

	signal(SIGXFSZ, SIG_IGN);
	struct rlimit l = {4, RLIM_INFINITY};
	OK(setrlimit(RLIMIT_FSIZE, &l));
	loff_t o = 2;
	EQ(splice(p[0], 0, f, &o, 6, 0), 2);
	EQ(o, 4);
	ERR(splice(p[0], 0, f, &o, 4, 0), EFBIG);
	EQ(read(p[0], buf, 10), 4);
	CHECK(!memcmp(buf, "cdef", 4));
}

CASE(peer_closed_with_unread_data)
{
	signal(SIGPIPE, SIG_IGN);
	for (int how = 0; how < 2; how++) {
		OK(socketpair(AF_UNIX, how ? SOCK_SEQPACKET : SOCK_STREAM, 0, s));
		EQ(write(s[0], "abc", 3), 3);
		close(s[1]);
		ERR(write(s[0], "abc", 3), how ? ECONNRESET : EPIPE);
		if (how)
			EQ(read(s[0], buf, 10), 0);
		else
			ERR(read(s[0], buf, 10), ECONNRESET);
		EQ(read(s[0], buf, 10), 0);
	}
}

/* Only pipes and streams send SIGPIPE. */
CASE(epipe_without_a_signal)
{
	struct sigaction a = {.sa_handler = on_pipe};
	OK(sigaction(SIGPIPE, &a, 0));
	pipes(0, 0);
	EQ(write(p[1], "abc", 3), 3);
	tmpdir();
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	EQ(write(f, "abc", 3), 3);
	for (int i = 0; i < 3; i++) {
		int type = i == 0 ? SOCK_STREAM : i == 1 ? SOCK_SEQPACKET : SOCK_DGRAM;
		struct iovec v = {"x", 1};
		off_t o = 0;
		OK(socketpair(AF_UNIX, type, 0, s));
		OK(shutdown(s[0], SHUT_WR));
		sigpipes = 0;
		ERR(write(s[0], "x", 1), EPIPE);
		EQ(sigpipes, i == 0);
		ERR(writev(s[0], &v, 1), EPIPE);
		EQ(sigpipes, 2 * (i == 0));
		ERR(send(s[0], "x", 1, 0), EPIPE);
		EQ(sigpipes, 3 * (i == 0));
		ERR(sendfile(s[0], f, &o, 3), EPIPE);
		EQ(sigpipes, 4 * (i == 0));
		ERR(splice(p[0], 0, s[0], 0, 3, 0), EPIPE);
		EQ(sigpipes, 5 * (i == 0));
	}
}

CASE(waits_and_is_interrupted)
{
	pipes(0, 0);
	BLOCKS(splice(p[0], 0, q[1], 0, 10, 0));
	BLOCKS(tee(p[0], q[1], 10, 0));
	EQ(write(p[1], "abc", 3), 3);
	fill(q[1]);
	BLOCKS(splice(p[0], 0, q[1], 0, 10, 0));
	BLOCKS(tee(p[0], q[1], 10, 0));
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	BLOCKS(splice(s[0], 0, p[1], 0, 10, 0));
	fill(s[0]);
	BLOCKS(splice(p[0], 0, s[0], 0, 10, 0));
	EQ(inside(p[0]), 3);
	struct timeval t = {0, 20000};
	OK(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
	ERR(splice(p[0], 0, s[0], 0, 10, 0), EAGAIN);
	EQ(read(p[0], buf, 10), 3);
	CHECK(!memcmp(buf, "abc", 3));
}

/* Nothing is taken from a file whose offset others move meanwhile. */
CASE(offset_moves_while_it_waits)
{
	tmpdir();
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	EQ(write(f, big, 1000), 1000);
	OK(lseek(f, 0, SEEK_SET));
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	fill(s[0]);
	pid_t c = CHILD({
		msleep(20);
		EQ(lseek(f, 0, SEEK_CUR), 0);
		OK(lseek(f, 0, SEEK_SET));
	});
	BLOCKS(sendfile(s[0], f, 0, 100));
	EQ(REAP(c), 0);
	EQ(lseek(f, 0, SEEK_CUR), 0);
	EQ(write(f, buf, 200), 200);
	EQ(read(f, buf, 1000), 800);
}

CASE(does_not_wait)
{
	tmpdir();
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	loff_t o = 0;
	OK(ftruncate(f, 10));
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pipes(0, 0);
	ERR(splice(p[0], 0, q[1], 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(tee(p[0], q[1], 10, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(splice(p[0], 0, f, 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(splice(s[0], 0, p[1], 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
	struct iovec v = {buf, 10};
	ERR(vmsplice(p[0], &v, 1, SPLICE_F_NONBLOCK), EAGAIN);
	fill(q[1]);
	ERR(splice(f, &o, q[1], 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(vmsplice(q[1], &v, 1, SPLICE_F_NONBLOCK), EAGAIN);
	EQ(write(p[1], "abc", 3), 3);
	ERR(splice(p[0], 0, q[1], 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(tee(p[0], q[1], 10, SPLICE_F_NONBLOCK), EAGAIN);

	/* O_NONBLOCK of either pipe does, too; of another file it alone. */
	pipes(O_NONBLOCK, 0);
	ERR(splice(p[0], 0, q[1], 0, 10, 0), EAGAIN);
	ERR(tee(p[0], q[1], 10, 0), EAGAIN);
	ERR(splice(p[0], 0, f, 0, 10, 0), EAGAIN);
	pipes(0, O_NONBLOCK);
	ERR(splice(p[0], 0, q[1], 0, 10, 0), EAGAIN);
	ERR(tee(p[0], q[1], 10, 0), EAGAIN);
	fill(q[1]);
	ERR(splice(f, &o, q[1], 0, 10, 0), EAGAIN);
	ERR(sendfile(q[1], f, 0, 10), EAGAIN);
	EQ(lseek(f, 0, SEEK_CUR), 0);
	BLOCKS(vmsplice(q[1], &v, 1, 0));
	EQ(write(p[1], "abc", 3), 3);
	fill(s[0]);
	BLOCKS(splice(p[0], 0, s[0], 0, 10, SPLICE_F_NONBLOCK));
	OK(fcntl(s[0], F_SETFL, O_NONBLOCK));
	ERR(splice(p[0], 0, s[0], 0, 10, 0), EAGAIN);
	ERR(splice(s[0], 0, p[1], 0, 10, 0), EAGAIN);
}

CASE(arguments)
{
	tmpdir();
	pipes(0, 0);
	int f = OK(open("f", O_CREAT | O_RDWR, 0600)), app = OK(open("f", O_RDWR | O_APPEND)), dir = OK(open(".", O_RDONLY));
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	loff_t o = 0;
	char path[40];
	EQ(splice(-1, 0, q[1], 0, 0, 0), 0);
	ERR(splice(-1, 0, q[1], 0, 1, 0), EBADF);
	ERR(splice(p[0], 0, q[1], 0, 1, 16), EINVAL);
	ERR(splice(p[0], 0, p[1], 0, 1, 0), EINVAL);
	sprintf(path, "/proc/self/fd/%d", p[0]);
	int again = OK(open(path, O_WRONLY));
	ERR(splice(p[0], 0, again, 0, 1, 0), EINVAL);
	ERR(tee(p[0], again, 1, 0), EINVAL);
	ERR(splice(p[1], 0, q[1], 0, 1, 0), EBADF);
	ERR(splice(p[0], 0, q[0], 0, 1, 0), EBADF);
	ERR(splice(p[0], &o, f, 0, 1, 0), ESPIPE);
	ERR(splice(f, 0, q[1], &o, 1, 0), ESPIPE);
	ERR(splice(p[0], 0, s[0], &o, 1, 0), EINVAL);
	ERR(splice(f, 0, f, 0, 1, 0), EINVAL);
	ERR(splice(dir, 0, p[1], 0, 1, 0), EINVAL);
	ERR(splice(p[0], 0, app, 0, 1, 0), EINVAL);
	ERR(splice(p[0], 0, app, &o, 1, 0), EINVAL);
	ERR(splice(f, (loff_t *)1, p[1], 0, 1, 0), EFAULT);
	o = -1;
	ERR(splice(f, &o, p[1], 0, 1, 0), EINVAL);
	o = 0x7ffffffffffffff0;
	ERR(splice(f, &o, p[1], 0, 100, 0), EINVAL);
	EQ(write(p[1], "abcdef", 6), 6);
	ERR(splice(p[0], 0, f, &o, 100, 0), EINVAL);
	ERR(splice(p[0], 0, f, 0, -1L, 0), EINVAL);
	EQ(splice(p[0], 0, q[1], 0, -1L, 0), 6);
	EQ(tee(q[0], p[1], -1L, 0), 6);
	o = 10;
	EQ(splice(q[0], 0, f, &o, 3, SPLICE_F_MOVE | SPLICE_F_MORE | SPLICE_F_GIFT), 3);
	EQ(o, 13);
	EQ(lseek(f, 0, SEEK_CUR), 0);
	EQ(splice(q[0], 0, f, 0, 1L << 40, 0), 3);
	EQ(lseek(f, 0, SEEK_CUR), 3);
	o = 13;
	EQ(splice(f, &o, p[1], 0, 100, 0), 0);
	ERR(tee(p[0], f, 1, 0), EINVAL);
	ERR(tee(f, p[1], 1, 0), EINVAL);
	ERR(tee(p[1], q[1], 1, 0), EBADF);
	ERR(tee(p[0], q[1], 1, 64), EINVAL);
	EQ(tee(-1, q[1], 0, 0), 0);
	struct iovec v = {buf, 10};
	ERR(vmsplice(f, &v, 1, 0), EBADF);
	EQ(vmsplice(f, &v, 0, 0), 0);
	ERR(vmsplice(p[1], &v, 1025, 0), EINVAL);
	ERR(vmsplice(p[1], &v, 1, 64), EINVAL);
	v.iov_base = (void *)8;
	ERR(vmsplice(p[1], &v, 1, 0), EFAULT);
	ERR(sendfile(q[1], p[0], 0, 1), EINVAL);
	ERR(sendfile(f, p[0], 0, 1), EINVAL);
	ERR(sendfile(app, f, 0, 1), EINVAL);
	ERR(sendfile(p[1], dir, 0, 1), EINVAL);
	close(p[1]);
	close(again);
	EQ(splice(p[0], 0, q[1], 0, 100, 0), 6);
	EQ(splice(p[0], 0, q[1], 0, 100, 0), 0);
	EQ(splice(p[0], 0, f, 0, 100, 0), 0);
	EQ(tee(p[0], q[1], 100, 0), 0);
}

CASE(as_much_as_fits)
{
	tmpdir();
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	loff_t o = 0;
	OK(ftruncate(f, 200000));
	pipes(0, 0);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 4096), 4096);
	EQ(splice(f, &o, p[1], 0, 200000, 0), 4096);
	EQ(o, 4096);
	ERR(splice(f, &o, p[1], 0, 200000, SPLICE_F_NONBLOCK), EAGAIN);
	EQ(fcntl(p[0], F_SETPIPE_SZ, 1 << 20), 1 << 20);
	EQ(splice(f, &o, p[1], 0, 95904, 0), 95904);
	EQ(inside(p[0]), 100000);
	ERR(fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
	EQ(tee(p[0], q[1], 200000, 0), 65536);
	EQ(read(q[0], buf, 65536), 65536);
	EQ(splice(p[0], 0, q[1], 0, 200000, 0), 65536);
	EQ(inside(p[0]), 34464);
	EQ(splice(p[0], 0, f, 0, 200000, 0), 34464);
	EQ(lseek(f, 0, SEEK_CUR), 34464);
	EQ(read(q[0], buf, 65536), 65536);
	long n = OK(sendfile(q[1], f, 0, 150000)); /* a page that is not whole takes as much room as one that is */
	CHECK(n > 60000 && n <= 65536);
	EQ(lseek(f, 0, SEEK_CUR), 34464 + n);
	EQ(read(q[0], buf, 65536), n);
	struct iovec v[2] = {{big, 200000}, {big, 100000}};
	n = OK(vmsplice(q[1], v, 2, 0));
	CHECK(n > 60000 && n <= 65536);
	v[0] = (struct iovec){buf, 100};
	EQ(vmsplice(q[0], v, 1, 0), 100);
	v[0].iov_len = 100000;
	EQ(vmsplice(q[0], v, 1, 0), n - 100);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(write(s[1], "hello", 5), 5);
	EQ(write(s[1], "world", 5), 5);
	EQ(splice(s[0], 0, p[1], 0, 100, 0), 10);
	EQ(write(s[1], "again", 5), 5);
	EQ(sendfile(p[1], s[0], 0, 100), 5);
	shutdown(s[1], SHUT_WR);
	EQ(splice(s[0], 0, p[1], 0, 100, 0), 0);
	EQ(read(p[0], buf, 100), 15);
	CHECK(!memcmp(buf, "helloworldagain", 15));
}

/* To a socket that blocks goes all that there is. */
CASE(all_to_a_socket)
{
	pipes(0, 0);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	EQ(fcntl(p[0], F_SETPIPE_SZ, 1 << 20), 1 << 20);
	for (int i = 0; i < sizeof big; i++)
		big[i] = i % 251;
	for (int i = 0; i < 3; i++)
		EQ(write(p[1], big, sizeof big), sizeof big);
	pid_t c = CHILD({
		close(s[0]);
		int n = 0;
		int k;
		while ((k = OK(read(s[1], buf, 7777)))) {
			for (int j = 0; j < k; j++)
				EQ((unsigned char)buf[j], (n + j) % sizeof big % 251);
			n += k;
		}
		EQ(n, 3 * sizeof big);
	});
	close(s[1]);
	EQ(splice(p[0], 0, s[0], 0, 1 << 20, 0), 3 * sizeof big);
	close(s[0]);
	EQ(REAP(c), 0);
}

CASE(packets)
{
	pipes(O_DIRECT, O_NONBLOCK);
	EQ(write(p[1], "abc", 3), 3);
	EQ(write(p[1], "de", 2), 2);
	EQ(tee(p[0], q[1], 4, 0), 4);
	EQ(read(q[0], buf, 10), 3);
	EQ(read(q[0], buf, 10), 1);
	EQ(splice(p[0], 0, q[1], 0, 10, SPLICE_F_NONBLOCK), 5);
	EQ(read(q[0], buf, 1), 1);
	EQ(read(q[0], buf, 10), 2);
	CHECK(buf[0] == 'd');
	EQ(write(p[1], "abcdef", 6), 6);
	EQ(splice(p[0], 0, q[1], 0, 3, 0), 3); /* two of one */
	EQ(splice(p[0], 0, q[1], 0, 2, 0), 2);
	EQ(read(q[0], buf, 10), 3);
	EQ(read(q[0], buf, 1), 1);
	ERR(read(q[0], buf, 10), EAGAIN);
	EQ(read(p[0], buf, 10), 1);
	EQ(write(p[1], "abc", 3), 3);
	EQ(write(p[1], "de", 2), 2);
	tmpdir();
	int f = OK(open("f", O_CREAT | O_RDWR, 0600));
	EQ(splice(p[0], 0, f, 0, 4, 0), 4);
	EQ(read(p[0], buf, 10), 1);
	EQ(write(p[1], "abc", 3), 3);
	EQ(write(p[1], "de", 2), 2);
	struct iovec v = {buf, 10};
	EQ(vmsplice(p[0], &v, 1, 0), 5);

	/* What is not written is no packet. */
	EQ(write(q[1], "abc", 3), 3);
	EQ(splice(q[0], 0, p[1], 0, 3, 0), 3);
	EQ(write(q[1], "de", 2), 2);
	EQ(splice(q[0], 0, p[1], 0, 2, 0), 2);
	EQ(read(p[0], buf, 1), 1);
	EQ(read(p[0], buf, 10), 4);
	OK(ftruncate(f, 10000));
	OK(lseek(f, 0, SEEK_SET));
	EQ(splice(f, 0, p[1], 0, 10000, 0), 10000);
	EQ(read(p[0], buf, 1), 1);
	EQ(read(p[0], buf, 20000), 9999);

	/* Packets around the end of a ring. */
	for (int i = 0; i < 2000; i++) {
		char w[701];
		memset(w, i, sizeof w);
		EQ(write(p[1], w, sizeof w), sizeof w);
		EQ(splice(p[0], 0, q[1], 0, 1000, 0), sizeof w);
		if (i < 5)
			continue;
		EQ(read(q[0], buf, 1000), sizeof w);
		for (int k = 0; k < sizeof w; k++)
			EQ(buf[k], (char)(i - 5));
	}
}

static void *mover(void *x)
{
	int *fd = x;
	for (;;)
		if (splice(fd[0], 0, fd[1], 0, S, 0) <= 0)
			return 0;
}

/* Records go round and round by several threads. */
CASE(in_a_circle)
{
	pipes(0, 0);
	static int there[2], back[2];
	there[0] = p[0], there[1] = q[1], back[0] = q[0], back[1] = p[1];
	enum { K = 20 };
	for (int i = 0; i < K; i++) {
		memset(buf, i, S);
		EQ(write(p[1], buf, S), S);
	}
	pthread_t t;
	for (int i = 0; i < 4; i++)
		EQ(pthread_create(&t, 0, mover, i & 1 ? there : back), 0);
	for (int i = 0; i < 2000; i++) {
		EQ(read(p[0], buf, S), S);
		EQ(write(q[1], buf, S), S);
	}
	char seen[K] = {};
	for (int i = 0; i < K; i++) {
		EQ(read(p[0], buf, S), S);
		for (int k = 0; k < S; k++)
			EQ(buf[k], buf[0]);
		EQ(seen[(int)buf[0]]++, 0);
	}
	EQ(inside(p[0]) + inside(q[0]), 0);
}

/* Who is killed while it waits for room leaves the pipe to others. */
CASE(killed_while_it_waits)
{
	for (int i = 0; i < 10; i++) {
		pipes(0, 0);
		OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
		fill(i & 1 ? q[1] : s[0]);
		EQ(write(p[1], "abc", 3), 3);
		pid_t c = CHILD(splice(p[0], 0, i & 1 ? q[1] : s[0], 0, 3, 0); _exit(1));
		usleep(i * 1000);
		OK(kill(c, SIGKILL));
		EQ(REAP(c), SIGKILL);
		EQ(read(p[0], buf, 10), 3);
		for (int *f = p; f < p + 2; f++)
			close(*f), close(f == p ? q[0] : q[1]), close(f == p ? s[0] : s[1]);
	}
}
