// Microbenchmarks of system calls: prints "name microseconds" per line (throughputs: microseconds per 64 KiB or per run).
// Every figure is the median of several rounds. Usage: micro [name...]
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7
static char *self;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void b_getpid_patched(int n)
{
	long r;
	while (n--)
		__asm__ volatile("mov $39,%%eax; syscall" : "=a"(r)::"rcx", "r11", "memory");
}
static void b_getpid(int n)
{
	while (n--)
		syscall(SYS_getpid);
}
static void b_clock(int n)
{
	struct timespec t;
	while (n--)
		clock_gettime(CLOCK_MONOTONIC, &t);
}
static int fd, fd16;
static char buf[1 << 16], big[16 << 20];
static void b_zero(int n)
{
	int z = open("/dev/zero", O_RDONLY);
	while (n--)
		if (read(z, buf, 1) != 1)
			die("zero");
	close(z);
}
static void b_pread(int n)
{
	while (n--)
		if (pread(fd, buf, 4096, 4096) != 4096)
			die("pread");
}
static void b_fstat(int n)
{
	struct stat s;
	while (n--)
		fstat(fd, &s);
}
static void b_stat(int n)
{
	struct stat s;
	while (n--)
		if (stat("/tmp/micro.dat", &s))
			die("stat");
}
static void b_open(int n)
{
	while (n--)
		close(open("/tmp/micro.dat", O_RDONLY));
}
static void b_create(int n)
{
	while (n--) {
		close(open("/tmp/micro.new", O_CREAT | O_WRONLY, 0600));
		unlink("/tmp/micro.new");
	}
}
static void b_mmap(int n)
{
	while (n--)
		munmap(mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536);
}
static void touch(size_t len)
{
	char *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < len; i += 4096)
		p[i] = 1;
	munmap(p, len);
}
static void b_touch_big(int n) { touch((size_t)n * 4096); }
static void b_touch_small(int n)
{
	for (; n > 0; n -= 16)
		touch(65536);
}
static void b_file_touch(int n)
{
	volatile char *p = mmap(0, 16 << 20, PROT_READ, MAP_PRIVATE, fd16, 0);
	for (int i = 0; i < n; i++)
		(void)p[(size_t)i * 4096];
	munmap((void *)p, 16 << 20);
}
static void b_fork(int n)
{
	while (n--) {
		pid_t p = fork();
		if (!p)
			_exit(0);
		waitpid(p, 0, 0);
	}
}
static void b_exec(int n)
{
	while (n--) {
		pid_t p = vfork();
		if (!p) {
			execl(self, "micro", "-", (char *)0);
			_exit(1);
		}
		waitpid(p, 0, 0);
	}
}
static void *nothing(void *x) { return x; }
static void b_thread(int n)
{
	while (n--) {
		pthread_t t;
		pthread_create(&t, 0, nothing, 0);
		pthread_join(t, 0);
	}
}
static volatile int f1, f2;
static void fwait(volatile int *f)
{
	while (!__sync_bool_compare_and_swap(f, 1, 0))
		syscall(SYS_futex, f, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
}
static void fwake(volatile int *f)
{
	*f = 1;
	syscall(SYS_futex, f, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
static void *fpong(void *x)
{
	for (long n = (long)x; n--;) {
		fwait(&f1);
		fwake(&f2);
	}
	return 0;
}
static void b_futex(int n)
{
	pthread_t t;
	pthread_create(&t, 0, fpong, (void *)(long)n);
	while (n--) {
		fwake(&f1);
		fwait(&f2);
	}
	pthread_join(t, 0);
}
static void pingpong(int a, int b, int c, int d, int n)
{
	char x = 0;
	pid_t p = fork();
	if (!p) {
		for (int i = 0; i < n; i++)
			if (read(c, &x, 1) != 1 || write(d, &x, 1) != 1)
				_exit(1);
		_exit(0);
	}
	for (int i = 0; i < n; i++)
		if (write(a, &x, 1) != 1 || read(b, &x, 1) != 1)
			die("ping-pong");
	waitpid(p, 0, 0);
}
static void b_pipe_pp(int n)
{
	int p[2], q[2];
	if (pipe(p) || pipe(q))
		die("pipe");
	pingpong(p[1], q[0], p[0], q[1], n);
	for (int i = 0; i < 2; i++)
		close(p[i]), close(q[i]);
}
static void b_unix_pp(int n)
{
	int s[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		die("socketpair");
	pingpong(s[0], s[0], s[1], s[1], n);
	close(s[0]);
	close(s[1]);
}
static void b_pipe_64k(int n)
{
	int p[2];
	if (pipe(p))
		die("pipe");
	pid_t c = fork();
	if (!c) {
		close(p[1]);
		while (read(p[0], buf, sizeof buf) > 0)
			;
		_exit(0);
	}
	close(p[0]);
	while (n--)
		if (write(p[1], buf, sizeof buf) != sizeof buf)
			die("write");
	close(p[1]);
	waitpid(c, 0, 0);
}
static void b_epoll(int n)
{
	int p[2], e = epoll_create1(0);
	if (pipe(p))
		die("pipe");
	struct epoll_event ev = {.events = EPOLLIN};
	epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev);
	while (n--)
		if (write(p[1], buf, 1) != 1 || epoll_wait(e, &ev, 1, -1) != 1 || read(p[0], buf, 1) != 1)
			die("epoll");
	close(p[0]);
	close(p[1]);
	close(e);
}
static void on(int s) {}
static void b_signal(int n)
{
	signal(SIGUSR1, on);
	pid_t p = getpid();
	while (n--)
		kill(p, SIGUSR1);
}
static void b_seq(int n)
{
	while (n--) {
		lseek(fd16, 0, SEEK_SET);
		for (int i = 0; i < 16 << 20; i += 65536)
			if (read(fd16, buf, 65536) != 65536)
				die("seq");
	}
}

static struct {
	const char *name;
	void (*run)(int);
	int n;
} list[] = {
	{"getpid-patched", b_getpid_patched, 10000}, {"getpid", b_getpid, 10000}, {"clock_gettime", b_clock, 100000}, {"read-zero-1", b_zero, 10000},
	{"pread-4k", b_pread, 5000}, {"fstat", b_fstat, 5000}, {"stat", b_stat, 3000}, {"open-close", b_open, 2000}, {"create-unlink", b_create, 500},
	{"mmap-munmap-64k", b_mmap, 1000}, {"touch-128m-page", b_touch_big, 32768}, {"touch-64k-page", b_touch_small, 4096}, {"file-touch-page", b_file_touch, 4096},
	{"fork-wait", b_fork, 50}, {"vfork-exec-wait", b_exec, 30}, {"pthread", b_thread, 100}, {"futex-ping-pong", b_futex, 1000},
	{"pipe-ping-pong", b_pipe_pp, 1000}, {"unix-ping-pong", b_unix_pp, 1000}, {"pipe-64k", b_pipe_64k, 2000}, {"epoll-cycle", b_epoll, 2000},
	{"signal-self", b_signal, 2000}, {"read-16m", b_seq, 4},
};

static int cmp(const void *a, const void *b)
{
	double x = *(double *)a, y = *(double *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "-"))
		return 0;
	self = argv[0];
	mkdir("/tmp", 0777);
	fd = open("/tmp/micro.dat", O_CREAT | O_RDWR | O_TRUNC, 0600);
	fd16 = open("/tmp/micro.16m", O_CREAT | O_RDWR | O_TRUNC, 0600);
	if (fd < 0 || fd16 < 0 || write(fd, buf, sizeof buf) < 0 || write(fd16, big, sizeof big) != sizeof big)
		die("/tmp");
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		int want = argc == 1;
		for (int j = 1; j < argc; j++)
			want |= !strcmp(argv[j], list[i].name);
		if (!want)
			continue;
		double t[ROUNDS];
		list[i].run(list[i].n / 10 + 1);
		for (int r = 0; r < ROUNDS; r++) {
			double s = now();
			list[i].run(list[i].n);
			t[r] = (now() - s) / list[i].n;
		}
		qsort(t, ROUNDS, sizeof *t, cmp);
		printf("%s %.3f\n", list[i].name, t[ROUNDS / 2]);
		fflush(stdout);
	}
	unlink("/tmp/micro.dat");
	unlink("/tmp/micro.16m");
	return 0;
}
