// fork(2), vfork(2), clone(2), execve(2), exit(2), wait(2) and process groups.
#include "husk.h"
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <linux/sched.h>

CASE(fork_exit_code) { EQ(WEXITSTATUS(REAP(CHILD(_exit(42)))), 42); }

CASE(fork_memory_is_a_copy)
{
	volatile int *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 1 << 18; i += 512)
		p[i] = i;
	int st = REAP(CHILD({
		for (int i = 0; i < 1 << 18; i += 512) {
			EQ(p[i], i);
			p[i] = -1;
		}
	}));
	EQ(st, 0);
	for (int i = 0; i < 1 << 18; i += 512)
		EQ(p[i], i);
}

CASE(fork_shared_mapping)
{
	volatile int *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EQ(REAP(CHILD(p[5] = 77)), 0);
	EQ(p[5], 77);
}

CASE(fork_many)
{
	for (int i = 0; i < 100; i++)
		EQ(WEXITSTATUS(REAP(CHILD(_exit(i)))), i);
}

CASE(fork_nested)
{
	int st = REAP(CHILD({
		int inner = REAP(CHILD(_exit(WEXITSTATUS(REAP(CHILD(_exit(3)))) + 1)));
		_exit(WEXITSTATUS(inner) + 1);
	}));
	EQ(WEXITSTATUS(st), 5);
}

CASE(vfork_shares_memory_and_waits)
{
	volatile int x = 0;
	pid_t p = vfork();
	if (p == 0) {
		x = 9;
		_exit(7);
	}
	EQ(x, 9);
	EQ(WEXITSTATUS(REAP(p)), 7);
}

CASE(wait_killed_by_signal)
{
	int st = REAP(CHILD({ signal(SIGTERM, SIG_DFL); raise(SIGTERM); }));
	CHECK(WIFSIGNALED(st));
	EQ(WTERMSIG(st), SIGTERM);
}

CASE(wait_no_children)
{
	ERR(waitpid(-1, 0, 0), ECHILD);
	ERR(waitpid(getpid(), 0, 0), ECHILD);
	ERR(waitpid(-1, 0, 0x40000), EINVAL);
}

CASE(wait_nohang)
{
	int pfd[2];
	OK(pipe(pfd));
	char c;
	pid_t p = CHILD({ close(pfd[1]); if (read(pfd[0], &c, 1) < 0) _exit(9); });
	int st;
	EQ(waitpid(p, &st, WNOHANG), 0);
	close(pfd[1]);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, 0);
}

CASE(waitid_fields)
{
	pid_t p = CHILD(_exit(5));
	siginfo_t si = {0};
	OK(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
	EQ(si.si_pid, p);
	EQ(si.si_code, CLD_EXITED);
	EQ(si.si_status, 5);
	EQ(si.si_signo, SIGCHLD);
	memset(&si, 0, sizeof si);
	OK(waitid(P_ALL, 0, &si, WEXITED));
	EQ(si.si_pid, p);
	ERR(waitid(P_ALL, 0, &si, WEXITED), ECHILD);
	ERR(waitid(P_ALL, 0, &si, 0), EINVAL);
}

CASE(wait_stopped_and_continued)
{
	pid_t p = CHILD(for (;;) pause());
	int st;
	OK(kill(p, SIGSTOP));
	EQ(waitpid(p, &st, WUNTRACED), p);
	CHECK(WIFSTOPPED(st));
	EQ(WSTOPSIG(st), SIGSTOP);
	OK(kill(p, SIGCONT));
	EQ(waitpid(p, &st, WCONTINUED), p);
	CHECK(WIFCONTINUED(st));
	OK(kill(p, SIGKILL));
	st = REAP(p);
	EQ(WTERMSIG(st), SIGKILL);
}

CASE(orphan_goes_to_subreaper)
{
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	int pfd[2];
	OK(pipe(pfd));
	pid_t p = CHILD({
		pid_t g = CHILD({
			msleep(50);
			pid_t pp = getppid();
			CHECK(write(pfd[1], &pp, sizeof pp) == sizeof pp);
			_exit(33);
		});
		(void)g;
	});
	EQ(REAP(p), 0);
	int st;
	pid_t orphan = wait(&st);
	CHECK(orphan > 0 && orphan != p);
	EQ(WEXITSTATUS(st), 33);
	pid_t pp;
	EQ(read(pfd[0], &pp, sizeof pp), sizeof pp);
	EQ(pp, getpid());
}

CASE(exec_true_and_failure)
{
	EQ(REAP(CHILD({ execl("/bin/true", "true", (char *)0); _exit(9); })), 0);
	EQ(WEXITSTATUS(REAP(CHILD({ execl("/bin/false", "false", (char *)0); _exit(9); }))), 1);
	ERR(execl("/no/such/file", "x", (char *)0), ENOENT);
	ERR(execl("/tmp", "x", (char *)0), EACCES);
	ERR(execl("/etc/passwd", "x", (char *)0), EACCES);
	ERR(execl("/etc/passwd/x", "x", (char *)0), ENOTDIR);
}

CASE(exec_script)
{
	tmpdir();
	OK(put_file("s", "#!/bin/sh\nexit $#\n"));
	OK(chmod("s", 0755));
	EQ(WEXITSTATUS(REAP(CHILD({ execl("./s", "s", "a", "b", (char *)0); _exit(99); }))), 2);
	OK(put_file("n", "not a program"));
	OK(chmod("n", 0755));
	ERR(execl("./n", "n", (char *)0), ENOEXEC);
	OK(put_file("loop", "#!./loop\n"));
	OK(chmod("loop", 0755));
	ERR(execl("./loop", "loop", (char *)0), ELOOP);
	OK(put_file("miss", "#!/no/such/interpreter\n"));
	OK(chmod("miss", 0755));
	ERR(execl("./miss", "miss", (char *)0), ENOENT);
}

static void copy_file(const char *from, const char *to)
{
	static char buf[1 << 16];
	int r = OK(open(from, O_RDONLY)), w = OK(open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755));
	for (ssize_t n; (n = OK(read(r, buf, sizeof buf))) > 0;)
		EQ(write(w, buf, n), n);
	close(r);
	close(w);
}

// start executes a program that waits for the end of its input, and gives its pid when it runs; *in keeps it waiting.
static pid_t start(const char *path, int *in)
{
	int p[2], q[2];
	char c;
	OK(pipe2(p, O_CLOEXEC));
	OK(pipe2(q, O_CLOEXEC));
	pid_t pid = CHILD({
		dup2(p[0], 0);
		execl(path, "cat", (char *)0);
		_exit(write(q[1], "x", 1) + 98);
	});
	close(p[0]);
	close(q[1]);
	EQ(read(q[0], &c, 1), 0);
	close(q[0]);
	*in = p[1];
	return pid;
}

CASE(exec_busy_text)
{
	int in;
	tmpdir();
	copy_file("/bin/cat", "cat");
	int w = OK(open("cat", O_RDWR));
	ERR(execl("./cat", "cat", (char *)0), ETXTBSY);
	OK(chmod("cat", 0600));
	ERR(execl("./cat", "cat", (char *)0), EACCES);
	OK(chmod("cat", 0700));
	close(w);
	w = OK(open("cat", O_RDONLY));
	pid_t pid = start("./cat", &in);
	ERR(open("cat", O_WRONLY), ETXTBSY);
	ERR(open("cat", O_RDWR | O_CREAT, 0600), ETXTBSY);
	ERR(open("cat", O_RDONLY | O_TRUNC), ETXTBSY);
	ERR(truncate("cat", 0), ETXTBSY);
	close(OK(open("cat", O_RDONLY)));
	pid_t forked = CHILD({ close(in); ERR(open("cat", O_WRONLY), ETXTBSY); });
	EQ(REAP(forked), 0);
	OK(rename("cat", "dog"));
	ERR(open("dog", O_WRONLY), ETXTBSY);
	OK(unlink("dog"));
	close(in);
	EQ(REAP(pid), 0);
	copy_file("/bin/cat", "cat");
	pid = start("./cat", &in);
	close(in);
	EQ(REAP(pid), 0);
	close(OK(open("cat", O_WRONLY)));
}

CASE(exec_script_is_not_busy)
{
	int in;
	tmpdir();
	OK(put_file("s", "#!/bin/sh\nread x\nexit 3\n"));
	OK(chmod("s", 0755));
	int w = OK(open("s", O_WRONLY));
	ERR(execl("./s", "s", (char *)0), ETXTBSY);
	close(w);
	pid_t pid = start("./s", &in);
	for (int i = 0; i < 100 && (w = open("s", O_WRONLY)) < 0; i++)
		msleep(10);
	CHECK(w >= 0);
	close(in);
	EQ(WEXITSTATUS(REAP(pid)), 3);
}

CASE(exec_memfd)
{
	static char buf[1 << 16];
	int m = OK(memfd_create("cat", MFD_CLOEXEC)), r = OK(open("/bin/true", O_RDONLY));
	for (ssize_t n; (n = OK(read(r, buf, sizeof buf))) > 0;)
		EQ(write(m, buf, n), n);
	char *argv[] = {"true", 0};
	EQ(REAP(CHILD({ fexecve(m, argv, environ); _exit(9); })), 0);
}

CASE(exec_arguments_too_long)
{
	size_t n = 200000;
	char *big = malloc(n + 1);
	memset(big, 'x', n);
	big[n] = 0;
	ERR(execl("/bin/true", "true", big, (char *)0), E2BIG);
}

CASE(exec_closes_cloexec)
{
	int a = OK(open("/dev/null", O_RDONLY | O_CLOEXEC)), b = OK(open("/dev/null", O_RDONLY));
	char cmd[100];
	sprintf(cmd, "test ! -e /proc/self/fd/%d && test -e /proc/self/fd/%d", a, b);
	EQ(REAP(CHILD({ execl("/bin/sh", "sh", "-c", cmd, (char *)0); _exit(9); })), 0);
}

static void *exec_thread(void *x)
{
	execl("/bin/true", "true", (char *)0);
	return x;
}

CASE(exec_from_thread)
{
	EQ(REAP(CHILD({
		   pthread_t t;
		   pthread_create(&t, 0, exec_thread, 0);
		   for (;;)
			   pause();
	   })),
	   0);
}

static void *add_thread(void *x)
{
	for (int i = 0; i < 1000; i++)
		__sync_fetch_and_add((int *)x, 1);
	return (void *)(long)gettid();
}

CASE(threads)
{
	int n = 0;
	pthread_t t[20];
	for (int i = 0; i < 20; i++)
		EQ(pthread_create(&t[i], 0, add_thread, &n), 0);
	for (int i = 0; i < 20; i++) {
		void *r;
		EQ(pthread_join(t[i], &r), 0);
		CHECK((long)r != getpid());
	}
	EQ(n, 20000);
}

static void *exit_main_thread(void *x)
{
	msleep(50);
	_exit(11);
}

CASE(leader_exits_first)
{
	int st = REAP(CHILD({
		pthread_t t;
		pthread_create(&t, 0, exit_main_thread, 0);
		syscall(SYS_exit, 3);
	}));
	EQ(WEXITSTATUS(st), 11);
}

static int clone_child(void *x)
{
	*(int *)x = 5;
	return 6;
}

CASE(clone_vm)
{
	static char stack[65536] __attribute__((aligned(16)));
	int v = 0;
	pid_t p = OK(clone(clone_child, stack + sizeof stack, CLONE_VM | SIGCHLD, &v));
	EQ(WEXITSTATUS(REAP(p)), 6);
	EQ(v, 5);
}

CASE(clone_bad_flags)
{
	ERR(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
}

CASE(clone3_pidfd)
{
	int pidfd = -1;
	struct clone_args a = {.flags = CLONE_PIDFD, .pidfd = (uint64_t)&pidfd, .exit_signal = SIGCHLD};
	long p = syscall(SYS_clone3, &a, sizeof a);
	if (p == 0)
		_exit(4);
	CHECK(p > 0 && pidfd >= 0);
	siginfo_t si = {0};
	OK(waitid(P_PIDFD, pidfd, &si, WEXITED));
	EQ(si.si_status, 4);
}

CASE(clone_clear_child_tid)
{
	static char stack[65536] __attribute__((aligned(16)));
	static volatile int tid;
	int v;
	OK(clone(clone_child, stack + sizeof stack,
		 CLONE_VM | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, &v, 0,
		 0, &tid));
	long long end = now_ms() + 5000;
	msleep(20);
	while (tid && now_ms() < end)
		msleep(1);
	EQ(tid, 0);
}

CASE(process_groups)
{
	pid_t p = CHILD(pause());
	OK(setpgid(p, p));
	EQ(getpgid(p), p);
	ERR(setpgid(p, 999999), EPERM);
	ERR(getpgid(999999), ESRCH);
	ERR(setpgid(0, -1), EINVAL);
	OK(killpg(p, SIGKILL));
	EQ(WTERMSIG(REAP(p)), SIGKILL);
}

CASE(sessions)
{
	ERR(setsid(), EPERM); // already the leader of a process group
	EQ(REAP(CHILD({
		   pid_t s = setsid();
		   EQ(s, getpid());
		   EQ(getsid(0), s);
		   EQ(getpgrp(), s);
		   ERR(setpgid(0, 0), EPERM);
	   })),
	   0);
}

CASE(wait_by_group)
{
	pid_t a = CHILD({ setpgid(0, 0); _exit(1); });
	setpgid(a, a);
	pid_t b = CHILD(_exit(2));
	int st;
	EQ(waitpid(-a, &st, 0), a);
	EQ(WEXITSTATUS(st), 1);
	EQ(waitpid(0, &st, 0), b);
}

CASE(sigchld_ignored_reaps)
{
	signal(SIGCHLD, SIG_IGN);
	CHILD(_exit(0));
	ERR(wait(0), ECHILD);
}

CASE(pdeathsig)
{
	int pfd[2];
	OK(pipe(pfd));
	pid_t p = CHILD({
		CHILD({
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(pfd[0]);
			if (write(pfd[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		});
		char c;
		if (read(pfd[0], &c, 1) != 1)
			_exit(1);
		_exit(0);
	});
	close(pfd[1]);
	EQ(REAP(p), 0);
	char c;
	EQ(read(pfd[0], &c, 1), 0); // the grandchild's end closes when it dies
}

CASE(rusage_children)
{
	REAP(CHILD({
		volatile long x = 0;
		long long end = now_ms() + 60;
		while (now_ms() < end)
			x++;
	}));
	struct rusage r;
	OK(getrusage(RUSAGE_CHILDREN, &r));
	CHECK(r.ru_utime.tv_usec + r.ru_stime.tv_usec + 1000000 * (r.ru_utime.tv_sec + r.ru_stime.tv_sec) > 5000);
}

CASE(prctl_name)
{
	char name[16] = "", longname[] = "a-name-longer-than-fifteen";
	OK(prctl(PR_SET_NAME, longname));
	OK(prctl(PR_GET_NAME, name));
	EQ(strcmp(name, "a-name-longer-t"), 0);
}

CASE(exit_group_kills_threads)
{
	int st = REAP(CHILD({
		pthread_t t;
		int x = 0;
		pthread_create(&t, 0, exit_main_thread, &x);
		_exit(8);
	}));
	EQ(WEXITSTATUS(st), 8);
}

CASE(environment_passes)
{
	EQ(REAP(CHILD({
		   char *env[] = {"HUSK_X=abc", 0};
		   execle("/bin/sh", "sh", "-c", "test \"$HUSK_X\" = abc", (char *)0, env);
	   })),
	   0);
}

CASE(clone_odd_exit_signal)
{
	int odd[] = {0, 64, 65, 213, 255};
	for (int i = 0; i < 5; i++) {
		signal(64, SIG_IGN);
		pid_t c = OK(syscall(SYS_clone, odd[i], 0, 0, 0, 0));
		if (c == 0)
			_exit(i);
		int st;
		ERR(waitpid(c, &st, 0), ECHILD);
		EQ(waitpid(c, &st, __WCLONE), c);
		EQ(WEXITSTATUS(st), i);
	}
}
