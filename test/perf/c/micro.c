// Microbenchmarks of system calls: prints "name microseconds" per line (throughputs: microseconds per 64 KiB or per run).
// Every figure is the median of several rounds. Usage:
//   micro [name...]            all or some
//   micro -serve [IMAGE]       a line with a name on standard input is answered with one round's figure on standard output;
//                              IMAGE is a file of 16 MiB that was there before, for the rows "image-"
//   micro -files DIR N         makes N empty files, says so, and sleeps
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
// A system call on a page that is writable and executable is one that no platform may replace.
static void (*unpatched)(void);
static void b_getpid_unpatched(int n)
{
	if (!unpatched) {
		unpatched = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (unpatched == MAP_FAILED)
			die("mmap");
		memcpy(unpatched, "\xb8\x27\0\0\0\x0f\x05\xc3", 8); // mov $39,%eax; syscall; ret
	}
	while (n--)
		__asm__ volatile("call *%0" ::"r"(unpatched) : "rax", "rcx", "r11", "memory");
}
static void b_clock(int n)
{
	struct timespec t;
	while (n--)
		clock_gettime(CLOCK_MONOTONIC, &t);
}
static int fd, fd16, image = -1;
static char buf[1 << 16];
static void b_zero(int n)
{
	int z = open("/dev/zero", O_RDONLY);
	while (n--)
		if (read(z, buf, 1) != 1)
			die("zero");
	close(z);
}
static void pread_4k(int f, int n)
{
	while (n--)
		if (pread(f, buf, 4096, 4096) != 4096)
			die("pread");
}
static void b_pread(int n) { pread_4k(fd, n); }
static void b_pread_image(int n) { pread_4k(image, n); }
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
static void file_touch(int f, int n)
{
	volatile char *p = mmap(0, 16 << 20, PROT_READ, MAP_PRIVATE, f, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (int i = 0; i < n; i++)
		(void)p[(size_t)i * 4096];
	munmap((void *)p, 16 << 20);
}
static void b_file_touch(int n) { file_touch(fd16, n); }
static void b_file_touch_image(int n) { file_touch(image, n); }
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
static volatile int *words, private; // two futex words on cache lines of their own, and FUTEX_PRIVATE_FLAG or 0
static void fwait(volatile int *f)
{
	while (!__sync_bool_compare_and_swap(f, 1, 0))
		syscall(SYS_futex, f, FUTEX_WAIT | private, 0, 0, 0, 0);
}
static void fwake(volatile int *f)
{
	*f = 1;
	syscall(SYS_futex, f, FUTEX_WAKE | private, 1, 0, 0, 0);
}
static void *fpong(void *x)
{
	for (long n = (long)x; n--;) {
		fwait(words);
		fwake(words + 64);
	}
	return 0;
}
static void fping(int n)
{
	while (n--) {
		fwake(words);
		fwait(words + 64);
	}
}
static void b_futex(int n)
{
	static int local[128];
	pthread_t t;
	words = local;
	private = FUTEX_PRIVATE_FLAG;
	pthread_create(&t, 0, fpong, (void *)(long)n);
	fping(n);
	pthread_join(t, 0);
}
static void b_futex_processes(int n)
{
	words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	private = 0;
	pid_t p = fork();
	if (!p) {
		fpong((void *)(long)n);
		_exit(0);
	}
	fping(n);
	waitpid(p, 0, 0);
	munmap((void *)words, 4096);
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
static void b_sleep(int n)
{
	struct timespec t = {0, 100000};
	while (n--)
		nanosleep(&t, 0);
}
static void seq(int f, int n)
{
	while (n--) {
		lseek(f, 0, SEEK_SET);
		for (int i = 0; i < 16 << 20; i += 65536)
			if (read(f, buf, 65536) != 65536)
				die("seq");
	}
}
static void b_seq(int n) { seq(fd16, n); }
static void b_seq_image(int n) { seq(image, n); }

static struct {
	const char *name;
	void (*run)(int);
	int n;
} list[] = {
	{"getpid-patched", b_getpid_patched, 10000}, {"getpid", b_getpid, 10000}, {"getpid-unpatched", b_getpid_unpatched, 10000}, {"clock_gettime", b_clock, 100000}, {"read-zero-1", b_zero, 10000},
	{"pread-4k", b_pread, 5000}, {"fstat", b_fstat, 5000}, {"stat", b_stat, 3000}, {"open-close", b_open, 2000}, {"create-unlink", b_create, 500},
	{"mmap-munmap-64k", b_mmap, 1000}, {"touch-128m-page", b_touch_big, 32768}, {"touch-64k-page", b_touch_small, 4096}, {"file-touch-page", b_file_touch, 4096},
	{"fork-wait", b_fork, 50}, {"vfork-exec-wait", b_exec, 30}, {"pthread", b_thread, 100}, {"futex-ping-pong", b_futex, 1000}, {"futex-processes", b_futex_processes, 1000},
	{"pipe-ping-pong", b_pipe_pp, 1000}, {"unix-ping-pong", b_unix_pp, 1000}, {"pipe-64k", b_pipe_64k, 2000}, {"epoll-cycle", b_epoll, 2000},
	{"signal-self", b_signal, 2000}, {"sleep-100us", b_sleep, 50}, {"read-16m", b_seq, 4},
	{"image-pread-4k", b_pread_image, 5000}, {"image-touch-page", b_file_touch_image, 4096}, {"image-read-16m", b_seq_image, 4},
};

static int cmp(const void *a, const void *b)
{
	double x = *(double *)a, y = *(double *)b;
	return x < y ? -1 : x > y;
}

// figure runs a row once and returns microseconds per operation.
static double figure(int i)
{
	double s = now();
	list[i].run(list[i].n);
	return (now() - s) / list[i].n;
}

// serve answers lines until the end of input.
static int serve(void)
{
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		unsigned i = 0;
		while (i < sizeof list / sizeof *list && strcmp(line, list[i].name))
			i++;
		if (i == sizeof list / sizeof *list) {
			fprintf(stderr, "no row %s\n", line);
			return 1;
		}
		list[i].run(list[i].n / 10 + 1);
		printf("%.4f\n", figure(i));
		fflush(stdout);
	}
	return 0;
}

static int files(const char *dir, int n)
{
	char path[300];
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%d", dir, i);
		int f = open(path, O_CREAT | O_WRONLY, 0600);
		if (f < 0)
			die(path);
		close(f);
	}
	puts("done");
	fflush(stdout);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "-"))
		return 0;
	if (argc == 4 && !strcmp(argv[1], "-files"))
		return files(argv[2], atoi(argv[3]));
	self = argv[0];
	mkdir("/tmp", 0777);
	fd = open("/tmp/micro.dat", O_CREAT | O_RDWR | O_TRUNC, 0600);
	fd16 = open("/tmp/micro.16m", O_CREAT | O_RDWR | O_TRUNC, 0600);
	if (fd < 0 || fd16 < 0 || write(fd, buf, sizeof buf) < 0)
		die("/tmp");
	for (int i = 0; i < 16 << 20; i += sizeof buf)
		if (write(fd16, buf, sizeof buf) != sizeof buf)
			die("/tmp");
	int server = argc > 1 && !strcmp(argv[1], "-serve"), err = 0;
	if (server && argc > 2 && (image = open(argv[2], O_RDONLY)) < 0)
		die(argv[2]);
	if (server)
		err = serve();
	for (unsigned i = 0; !server && i < sizeof list / sizeof *list; i++) {
		int want = argc == 1 && strncmp(list[i].name, "image-", 6);
		for (int j = 1; j < argc; j++)
			want |= !strcmp(argv[j], list[i].name);
		if (!want)
			continue;
		double t[ROUNDS];
		list[i].run(list[i].n / 10 + 1);
		for (int r = 0; r < ROUNDS; r++)
			t[r] = figure(i);
		qsort(t, ROUNDS, sizeof *t, cmp);
		printf("%s %.3f\n", list[i].name, t[ROUNDS / 2]);
		fflush(stdout);
	}
	unlink("/tmp/micro.dat");
	unlink("/tmp/micro.16m");
	return err;
}
