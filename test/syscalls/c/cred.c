// setuid(2) and friends, capabilities(7), user namespaces, prctl(2), seccomp(2).
#include "husk.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <pthread.h>

#define NEED_ROOT                                                        \
	if (geteuid())                                                   \
	SKIP("needs root")

static unsigned long long caps(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];
	OK(syscall(SYS_capget, &h, d));
	return d[0].effective | (unsigned long long)d[1].effective << 32;
}

CASE(setuid_drops_everything)
{
	NEED_ROOT;
	CHECK(caps() & 1 << CAP_CHOWN);
	OK(setuid(1000));
	uid_t r, e, s;
	OK(getresuid(&r, &e, &s));
	CHECK(r == 1000 && e == 1000 && s == 1000);
	EQ(caps(), 0);
	ERR(setuid(0), EPERM);
	OK(setuid(1000));
}

CASE(seteuid_and_back)
{
	NEED_ROOT;
	OK(seteuid(1000));
	EQ(caps(), 0);
	OK(seteuid(0));
	CHECK(caps() != 0);
	OK(setresuid(1, 2, 3));
	OK(setresuid(-1, 3, -1));
	ERR(setresuid(-1, 7, -1), EPERM);
	EQ(setfsuid(-1), 3);
}

CASE(groups)
{
	NEED_ROOT;
	gid_t g[3] = {5, 6, 7}, h[5];
	OK(setgroups(3, g));
	EQ(getgroups(0, h), 3);
	EQ(getgroups(5, h), 3);
	CHECK(h[2] == 7);
	ERR(getgroups(2, h), EINVAL);
	OK(setresgid(1, 2, 3));
	OK(setuid(1000));
	ERR(setgroups(0, 0), EPERM);
	ERR(setgid(55), EPERM);
	OK(setgid(3));
}

CASE(keepcaps)
{
	NEED_ROOT;
	OK(prctl(PR_SET_KEEPCAPS, 1));
	OK(setuid(1000));
	EQ(caps(), 0);
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{1 << CAP_CHOWN, 1 << CAP_CHOWN, 0}};
	OK(syscall(SYS_capset, &h, d));
	EQ(caps(), 1 << CAP_CHOWN);
	d[0].permitted |= 1 << CAP_KILL;
	ERR(syscall(SYS_capset, &h, d), EPERM);
	h.version = 1;
	ERR(syscall(SYS_capget, &h, d), EINVAL);
}

CASE(ambient)
{
	NEED_ROOT;
	ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 63, 0, 0), EINVAL);
	EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
	OK(prctl(PR_CAPBSET_READ, CAP_CHOWN));
	ERR(prctl(PR_CAPBSET_READ, 99), EINVAL);
	OK(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME));
	EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME), 0);
}

CASE(kill_needs_permission)
{
	NEED_ROOT;
	pid_t p = getpid();
	EQ(REAP(CHILD({
		   OK(setuid(1000));
		   ERR(kill(p, 0), EPERM);
		   ERR(kill(p, SIGTERM), EPERM);
	   })),
	   0);
}

CASE(setuid_program)
{
	NEED_ROOT;
	tmpdir();
	OK(chmod(".", 0755));
	int st = REAP(CHILD({ execl("/bin/sh", "sh", "-c", "cp /usr/bin/id ./id && chown 4321 id && chmod 4755 id", (char *)0); }));
	EQ(st, 0);
	EQ(REAP(CHILD({ execl("/bin/sh", "sh", "-c", "test $(./id -u) = 4321", (char *)0); })), 0);
	EQ(REAP(CHILD({
		   prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		   execl("/bin/sh", "sh", "-c", "test $(./id -u) = 0", (char *)0);
	   })),
	   0);
}

CASE(no_new_privs)
{
	EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
	ERR(prctl(12345, 0, 0, 0, 0), EINVAL);
}

CASE(dumpable)
{
	EQ(prctl(PR_GET_DUMPABLE), 1);
	OK(prctl(PR_SET_DUMPABLE, 0));
	EQ(prctl(PR_GET_DUMPABLE), 0);
	ERR(prctl(PR_SET_DUMPABLE, 2), EINVAL);
}

static int put(const char *f, const char *t)
{
	int fd = open(f, O_WRONLY);
	int r = fd < 0 ? -1 : write(fd, t, strlen(t));
	close(fd);
	return r;
}

CASE(user_namespace)
{
	NEED_ROOT;
	EQ(REAP(CHILD({
		   OK(setuid(1000));
		   OK(prctl(PR_SET_DUMPABLE, 1));
		   if (unshare(CLONE_NEWUSER))
			   _exit(errno == EPERM || errno == ENOSPC ? 0 : 1);
		   EQ(getuid(), 65534);
		   CHECK(caps() != 0);
		   OK(put("/proc/self/setgroups", "deny"));
		   CHECK(put("/proc/self/uid_map", "0 1000 1") > 0);
		   EQ(getuid(), 0);
		   ERR(put("/proc/self/uid_map", "0 1000 1"), EPERM);
		   OK(unshare(CLONE_NEWUTS));
		   OK(sethostname("inner", 5));
	   })),
	   0);
}

static int filter(struct sock_filter *f, int n)
{
	struct sock_fprog p = {n, f};
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);
}
#define ONE(nr, action)                                                                     \
	struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),                    \
				  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),            \
				  BPF_STMT(BPF_RET | BPF_K, action),                        \
				  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};            \
	OK(filter(f, 4))

CASE(seccomp_errno)
{
	ONE(SYS_getppid, SECCOMP_RET_ERRNO | 77);
	ERR(syscall(SYS_getppid), 77);
	CHECK(getpid() > 0);
	EQ(prctl(PR_GET_SECCOMP), 2);
}

CASE(seccomp_kill)
{
	int st = REAP(CHILD({
		ONE(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
		syscall(SYS_getppid);
	}));
	EQ(WTERMSIG(st), SIGSYS);
}

static volatile int sysnr;
static void on_sys(int s, siginfo_t *i, void *u) { sysnr = i->si_syscall; }

CASE(seccomp_trap)
{
	struct sigaction a = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
	sigaction(SIGSYS, &a, 0);
	ONE(SYS_getppid, SECCOMP_RET_TRAP);
	syscall(SYS_getppid);
	EQ(sysnr, SYS_getppid);
}

CASE(seccomp_inherited_by_exec)
{
	int st = REAP(CHILD({
		ONE(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
		execl("/bin/sh", "sh", "-c", "exit 3", (char *)0);
	}));
	CHECK((WIFSIGNALED(st) && WTERMSIG(st) == SIGSYS) || WEXITSTATUS(st) == 3);
}

CASE(seccomp_strict)
{
	int st = REAP(CHILD({
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		if (write(1, "", 0))
			_exit(1);
		getppid();
	}));
	EQ(WTERMSIG(st), SIGKILL);
}

CASE(seccomp_bad_programs)
{
	struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 3), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	ERR(filter(f, 2), EINVAL);
	ERR(filter(f, 1), EINVAL);
	ERR(filter(f, 0), EINVAL);
	ERR(syscall(SYS_seccomp, 99, 0, 0), EINVAL);
}
