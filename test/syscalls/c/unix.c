// unix(7): stream, datagram and seqpacket sockets, ancillary data.
#include "husk.h"
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/uio.h>

static struct sockaddr_un addr(const char *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, p);
	return a;
}
#define SA(a) (struct sockaddr *)&(a), sizeof(a)

static int listener(const char *path, int type)
{
	int s = OK(socket(AF_UNIX, type, 0));
	struct sockaddr_un a = addr(path);
	OK(bind(s, SA(a)));
	OK(listen(s, 5));
	return s;
}

static int client(const char *path, int type)
{
	int s = OK(socket(AF_UNIX, type, 0));
	struct sockaddr_un a = addr(path);
	OK(connect(s, SA(a)));
	return s;
}

CASE(socketpair_stream)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	char b[10];
	EQ(write(s[0], "abc", 3), 3);
	EQ(write(s[0], "de", 2), 2);
	EQ(read(s[1], b, 10), 5);
	EQ(send(s[1], "x", 1, 0), 1);
	EQ(recv(s[0], b, 10, 0), 1);
	close(s[1]);
	EQ(read(s[0], b, 10), 0);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}

CASE(socketpair_boundaries)
{
	int s[2], kinds[] = {SOCK_DGRAM, SOCK_SEQPACKET};
	for (int k = 0; k < 2; k++) {
		OK(socketpair(AF_UNIX, kinds[k], 0, s));
		char b[10];
		EQ(send(s[0], "abc", 3, 0), 3);
		EQ(send(s[0], "de", 2, 0), 2);
		EQ(recv(s[1], b, 2, MSG_PEEK), 2);
		EQ(recv(s[1], b, 2, MSG_TRUNC), 3);
		EQ(recv(s[1], b, 10, 0), 2);
		ERR(recv(s[1], b, 10, MSG_DONTWAIT), EAGAIN);
		EQ(send(s[0], "", 0, 0), 0);
		EQ(recv(s[1], b, 10, 0), 0);
	}
}

CASE(connect_accept)
{
	tmpdir();
	int l = listener("s", SOCK_STREAM), c = client("s", SOCK_STREAM);
	struct sockaddr_un a;
	socklen_t n = sizeof a;
	int s = OK(accept4(l, (struct sockaddr *)&a, &n, SOCK_CLOEXEC));
	EQ(n, 2);
	EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
	EQ(write(c, "hi", 2), 2);
	char b[10];
	EQ(read(s, b, 10), 2);
	n = sizeof a;
	OK(getpeername(c, (struct sockaddr *)&a, &n));
	CHECK(!strcmp(a.sun_path, "s"));
	n = sizeof a;
	OK(getsockname(s, (struct sockaddr *)&a, &n));
	CHECK(!strcmp(a.sun_path, "s"));
	struct ucred u;
	n = sizeof u;
	OK(getsockopt(s, SOL_SOCKET, SO_PEERCRED, &u, &n));
	EQ(u.pid, getpid());
	struct stat st;
	OK(stat("s", &st));
	CHECK(S_ISSOCK(st.st_mode));
	ERR(open("s", O_RDWR), ENXIO);
}

CASE(connect_errors)
{
	tmpdir();
	int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	struct sockaddr_un a = addr("none");
	ERR(connect(s, SA(a)), ENOENT);
	OK(put_file("plain", ""));
	a = addr("plain");
	ERR(connect(s, SA(a)), ECONNREFUSED);
	close(listener("dead", SOCK_STREAM));
	a = addr("dead");
	ERR(connect(s, SA(a)), ECONNREFUSED);
	ERR(bind(s, SA(a)), EADDRINUSE);
	listener("dg", SOCK_SEQPACKET);
	a = addr("dg");
	ERR(connect(s, SA(a)), EPROTOTYPE);
	a.sun_family = AF_INET;
	ERR(connect(s, SA(a)), EINVAL);
	ERR(listen(s, 1), EINVAL);
	ERR(accept(s, 0, 0), EINVAL);
	char b;
	ERR(recv(s, &b, 1, 0), EINVAL);
	ERR(send(s, &b, 1, MSG_NOSIGNAL), ENOTCONN);
	ERR(socket(AF_UNIX, 9, 0), ESOCKTNOSUPPORT);
	ERR(socket(AF_UNIX, SOCK_STREAM, 99), EPROTONOSUPPORT);
	ERR(socket(200, SOCK_STREAM, 0), EAFNOSUPPORT);
	ERR(bind(0, SA(a)), ENOTSOCK);
}

CASE(abstract_names)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	sprintf(a.sun_path + 1, "husk-%d", getpid());
	socklen_t n = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1);
	int l = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(l, (struct sockaddr *)&a, n));
	OK(listen(l, 1));
	OK(connect(c, (struct sockaddr *)&a, n));
	int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR(bind(d, (struct sockaddr *)&a, n), EADDRINUSE);
	close(l);
	ERR(connect(d, (struct sockaddr *)&a, n), ECONNREFUSED);
	sa_family_t f = AF_UNIX;
	OK(bind(d, (struct sockaddr *)&f, sizeof f)); // autobind
	n = sizeof a;
	OK(getsockname(d, (struct sockaddr *)&a, &n));
	EQ(n, 8);
}

CASE(datagrams_by_name)
{
	tmpdir();
	int a = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), b = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	struct sockaddr_un x = addr("a"), y = addr("b"), from;
	OK(bind(a, SA(x)));
	OK(bind(b, SA(y)));
	EQ(sendto(a, "hello", 5, 0, SA(y)), 5);
	char buf[10];
	socklen_t n = sizeof from;
	EQ(recvfrom(b, buf, 10, 0, (struct sockaddr *)&from, &n), 5);
	CHECK(!strcmp(from.sun_path, "a"));
	ERR(send(a, "x", 1, 0), ENOTCONN);
	OK(connect(a, SA(y)));
	EQ(send(a, "x", 1, 0), 1);
}

CASE(pass_descriptors)
{
	int s[2], p[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(pipe(p));
	char c = 'x', buf[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &p[1], sizeof(int));
	EQ(sendmsg(s[0], &m, 0), 1);
	close(p[1]);
	memset(buf, 0, sizeof buf);
	m.msg_controllen = sizeof buf;
	EQ(recvmsg(s[1], &m, MSG_CMSG_CLOEXEC), 1);
	h = CMSG_FIRSTHDR(&m);
	CHECK(h && h->cmsg_type == SCM_RIGHTS);
	int fd;
	memcpy(&fd, CMSG_DATA(h), sizeof fd);
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	EQ(write(fd, "y", 1), 1);
	EQ(read(p[0], &c, 1), 1);
	EQ(c, 'y');
}

CASE(descriptors_in_flight_are_freed)
{
	int p[2];
	OK(pipe(p));
	for (int i = 0; i < 50; i++) {
		int s[2];
		OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
		char c = 'x', buf[CMSG_SPACE(sizeof(int))] = {0};
		struct iovec v = {&c, 1};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf};
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &p[1], sizeof(int));
		EQ(sendmsg(s[0], &m, 0), 1);
		close(s[0]);
		close(s[1]);
	}
	close(p[1]);
	char c;
	EQ(read(p[0], &c, 1), 0);
}

CASE(credentials)
{
	int s[2], on = 1;
	OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	EQ(send(s[0], "x", 1, 0), 1);
	char c, buf[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf};
	EQ(recvmsg(s[1], &m, 0), 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	CHECK(h && h->cmsg_type == SCM_CREDENTIALS);
	struct ucred u;
	memcpy(&u, CMSG_DATA(h), sizeof u);
	CHECK(u.pid == getpid() && u.uid == getuid());
}

CASE(shutdown_halves)
{
	int s[2];
	char b;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(shutdown(s[0], SHUT_WR));
	EQ(read(s[1], &b, 1), 0);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	EQ(send(s[1], "y", 1, 0), 1);
	EQ(read(s[0], &b, 1), 1);
	struct pollfd f = {s[1], POLLIN | POLLRDHUP};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN | POLLRDHUP);
	ERR(shutdown(s[0], 9), EINVAL);
}

CASE(options)
{
	int s = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)), v;
	socklen_t n = sizeof v;
	OK(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &n));
	EQ(v, SOCK_STREAM);
	OK(getsockopt(s, SOL_SOCKET, SO_DOMAIN, &v, &n));
	EQ(v, AF_UNIX);
	OK(getsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &v, &n));
	EQ(v, 0);
	OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &v, &n));
	EQ(v, 0);
	v = 40000;
	OK(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
	OK(getsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, &n));
	EQ(v, 80000);
	ERR(getsockopt(s, SOL_SOCKET, 9999, &v, &n), ENOPROTOOPT);
	ERR(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, 1), EINVAL);
	int p[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	struct timeval tv = {0, 50000};
	OK(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	char b;
	long long t = now_ms();
	ERR(read(p[0], &b, 1), EAGAIN);
	CHECK(now_ms() - t >= 49);
}

CASE(nonblocking_accept_and_backlog)
{
	tmpdir();
	int l = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
	struct sockaddr_un a = addr("s");
	OK(bind(l, SA(a)));
	OK(listen(l, 1));
	ERR(accept(l, 0, 0), EAGAIN);
	int n = 0;
	for (; n < 50; n++) {
		int c = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		if (connect(c, SA(a))) {
			EQ(errno, EAGAIN);
			break;
		}
	}
	EQ(n, 2);
	struct pollfd f = {l, POLLIN};
	EQ(poll(&f, 1, 0), 1);
	OK(accept(l, 0, 0));
}

CASE(big_stream_transfer)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t c = CHILD({
		static char b[1 << 20];
		for (int i = 0; i < 1 << 20; i++)
			b[i] = i % 127;
		size_t done = 0;
		while (done < sizeof b)
			done += OK(write(s[0], b + done, sizeof b - done));
	});
	close(s[0]);
	char b[10000];
	long n = 0, r;
	while ((r = read(s[1], b, sizeof b)) > 0)
		for (int i = 0; i < r; i++)
			EQ(b[i], n++ % 127);
	EQ(n, 1 << 20);
	EQ(REAP(c), 0);
}

CASE(waitall)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t c = CHILD({
		EQ(write(s[0], "abc", 3), 3);
		msleep(30);
		EQ(write(s[0], "def", 3), 3);
	});
	char b[6];
	EQ(recv(s[1], b, 6, MSG_WAITALL), 6);
	EQ(REAP(c), 0);
}

CASE(many_messages)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	struct mmsghdr m[3] = {0};
	struct iovec v[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
	for (int i = 0; i < 3; i++)
		m[i].msg_hdr.msg_iov = &v[i], m[i].msg_hdr.msg_iovlen = 1;
	EQ(sendmmsg(s[0], m, 3, 0), 3);
	char b[3][4];
	for (int i = 0; i < 3; i++)
		v[i] = (struct iovec){b[i], 4};
	EQ(recvmmsg(s[1], m, 3, MSG_DONTWAIT, 0), 3);
	EQ(m[2].msg_len, 3);
	int n;
	EQ(write(s[0], "1234", 4), 4);
	OK(ioctl(s[1], FIONREAD, &n));
	EQ(n, 4);
}

// A chain of sockets, each in flight in the next: that may not cost a look at all of them for each that is closed.
CASE(long_chain_in_flight)
{
	int before = -1;
	for (int i = 0; i < 20000; i++) {
		int p[2];
		char control[CMSG_SPACE(sizeof(int))] = {0};
		struct iovec io = {"x", 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, p));
		if (before >= 0) {
			struct cmsghdr *h = CMSG_FIRSTHDR(&m);
			*h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
			memcpy(CMSG_DATA(h), &before, sizeof before);
			OK(sendmsg(p[0], &m, 0));
			close(before);
		}
		close(p[0]);
		before = p[1];
	}
	OK(close(before));
}
