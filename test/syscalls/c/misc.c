// uname(2), sched_*(2), sysinfo(2), getrandom(2), rseq(2), namespaces, System V IPC, mqueue, /proc.
#include "husk.h"
#include <dirent.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

CASE(uname_fields)
{
	struct utsname u;
	OK(uname(&u));
	CHECK(!strcmp(u.sysname, "Linux") && !strcmp(u.machine, "x86_64"));
	CHECK(atoi(u.release) >= 4);
}

CASE(getrandom_bytes)
{
	char a[64] = {0}, z[64] = {0};
	EQ(getrandom(a, 64, 0), 64);
	CHECK(memcmp(a, z, 64));
	ERR(getrandom(a, 64, 0x100), EINVAL);
}

CASE(affinity)
{
	cpu_set_t c;
	OK(sched_getaffinity(0, sizeof c, &c));
	CHECK(CPU_COUNT(&c) >= 1 && CPU_COUNT(&c) <= get_nprocs_conf());
	OK(sched_setaffinity(0, sizeof c, &c));
	CPU_ZERO(&c);
	ERR(sched_setaffinity(0, sizeof c, &c), EINVAL);
	ERR(sched_getaffinity(999999, sizeof c, &c), ESRCH);
	ERR(sched_getaffinity(-1, sizeof c, &c), ESRCH);
	CHECK(sched_getcpu() >= 0);
}

CASE(policies_and_nice)
{
	EQ(sched_getscheduler(0), SCHED_OTHER);
	ERR(sched_getscheduler(-1), EINVAL);
	EQ(sched_get_priority_max(SCHED_FIFO), 99);
	ERR(sched_get_priority_max(77), EINVAL);
	OK(sched_yield());
	int nice = getpriority(PRIO_PROCESS, 0); // the test itself may run with another than 0
	CHECK(nice >= 0 && nice < 15);
	OK(setpriority(PRIO_PROCESS, 0, nice + 5));
	EQ(getpriority(PRIO_PROCESS, 0), nice + 5);
	struct sched_param p;
	OK(sched_getparam(0, &p));
	EQ(p.sched_priority, 0);
	struct timespec t;
	OK(sched_rr_get_interval(0, &t));
}

CASE(sysinfo_sane)
{
	struct sysinfo s;
	OK(sysinfo(&s));
	CHECK(s.totalram > 0 && s.uptime >= 0 && s.procs > 0);
	CHECK(sysconf(_SC_PHYS_PAGES) > 0);
}

CASE(rlimits)
{
	struct rlimit r = {100, 200}, o;
	OK(setrlimit(RLIMIT_NOFILE, &r));
	OK(prlimit(0, RLIMIT_NOFILE, 0, &o));
	CHECK(o.rlim_cur == 100 && o.rlim_max == 200);
	r.rlim_cur = 300;
	ERR(setrlimit(RLIMIT_NOFILE, &r), EINVAL);
	ERR(getrlimit(99, &r), EINVAL);
	ERR(prlimit(999999, RLIMIT_NOFILE, 0, &o), ESRCH);
}

CASE(unknown_system_call) { ERR(syscall(5000), ENOSYS); ERR(syscall(-1), ENOSYS); }

CASE(uts_namespace)
{
	if (geteuid())
		SKIP("needs root");
	EQ(REAP(CHILD({
		   if (unshare(CLONE_NEWUTS))
			   FAIL("unshare");
		   OK(sethostname("changed", 7));
		   struct utsname u;
		   OK(uname(&u));
		   CHECK(!strcmp(u.nodename, "changed"));
	   })),
	   0);
	struct utsname u;
	OK(uname(&u));
	CHECK(strcmp(u.nodename, "changed"));
}

CASE(pid_namespace)
{
	if (geteuid())
		SKIP("needs root");
	OK(unshare(CLONE_NEWPID));
	EQ(REAP(CHILD(EQ(getpid(), 1); EQ(getppid(), 0))), 0);
}

CASE(mount_namespace)
{
	if (geteuid())
		SKIP("needs root");
	char *d = tmpdir(), p[100];
	OK(mkdir("m", 0755));
	OK(mkdir("b", 0755));
	sprintf(p, "%s/m", d);
	EQ(REAP(CHILD({
		   OK(unshare(CLONE_NEWNS));
		   OK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
		   OK(mount("none", p, "tmpfs", MS_NOSUID, "size=1m,mode=0711"));
		   OK(put_file("m/x", "y"));
		   struct stat st;
		   OK(stat("m", &st));
		   EQ(st.st_mode & 07777, 0711);
		   OK(mount("m", "b", 0, MS_BIND, 0));
		   OK(access("b/x", F_OK));
		   OK(mount(0, "b", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
		   ERR(open("b/x", O_RDWR), EROFS);
		   OK(open("m/x", O_RDWR));
		   OK(mkdir("self", 0755));
		   OK(mount("self", "self", 0, MS_BIND, 0));
		   OK(mount(0, "self", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
		   ERR(open("self/x", O_CREAT | O_RDWR, 0600), EROFS);
		   ERR(umount("m"), EBUSY);
		   OK(umount2("m", MNT_DETACH));
		   ERR(access("m/x", F_OK), ENOENT);
		   ERR(umount("m"), EINVAL);
		   ERR(mount("x", "m", "nosuchfs", 0, 0), ENODEV);
	   })),
	   0);
	ERR(access("m/x", F_OK), ENOENT);
}

CASE(message_queues)
{
	int q = OK(msgget(IPC_PRIVATE, 0600));
	struct { long t; char b[16]; } m = {3, "three"};
	OK(msgsnd(q, &m, 6, 0));
	m.t = 5;
	strcpy(m.b, "five");
	OK(msgsnd(q, &m, 5, 0));
	EQ(msgrcv(q, &m, 16, 5, 0), 5);
	CHECK(!strcmp(m.b, "five"));
	ERR(msgrcv(q, &m, 2, 0, 0), E2BIG);
	EQ(msgrcv(q, &m, 2, 0, MSG_NOERROR), 2);
	ERR(msgrcv(q, &m, 16, 0, IPC_NOWAIT), ENOMSG);
	OK(msgctl(q, IPC_RMID, 0));
	ERR(msgsnd(q, &m, 1, 0), EINVAL);
}

CASE(semaphores)
{
	int s = OK(semget(IPC_PRIVATE, 2, 0600));
	OK(semctl(s, 0, SETVAL, 1));
	struct sembuf d = {0, -1, IPC_NOWAIT}, u = {0, 1, 0};
	OK(semop(s, &d, 1));
	ERR(semop(s, &d, 1), EAGAIN);
	pid_t c = CHILD({
		struct sembuf w = {0, -1, 0};
		OK(semop(s, &w, 1));
	});
	msleep(30);
	OK(semop(s, &u, 1));
	EQ(REAP(c), 0);
	EQ(semctl(s, 0, GETVAL), 0);
	c = CHILD({
		struct sembuf w = {1, 3, SEM_UNDO};
		OK(semop(s, &w, 1));
	});
	REAP(c);
	EQ(semctl(s, 1, GETVAL), 0);
	OK(semctl(s, 0, IPC_RMID));
	ERR(semop(s, &u, 1), EINVAL);
}

CASE(posix_message_queue)
{
	char n[40];
	sprintf(n, "/husk-%d", getpid());
	struct mq_attr a = {.mq_maxmsg = 3, .mq_msgsize = 16};
	mqd_t q = mq_open(n, O_CREAT | O_RDWR | O_NONBLOCK, 0600, &a);
	if (q < 0)
		FAIL("mq_open");
	OK(mq_send(q, "low", 4, 1));
	OK(mq_send(q, "high", 5, 9));
	char b[16];
	unsigned pr;
	EQ(mq_receive(q, b, 16, &pr), 5);
	EQ(pr, 9);
	EQ(mq_receive(q, b, 16, &pr), 4);
	ERR(mq_receive(q, b, 16, &pr), EAGAIN);
	ERR(mq_receive(q, b, 2, &pr), EMSGSIZE);
	OK(mq_unlink(n));
	ERR(mq_unlink(n), ENOENT);
}

static int slurp(const char *f, char *b, int n)
{
	int fd = OK(open(f, O_RDONLY));
	int have = 0, r;
	while (have < n - 1 && (r = read(fd, b + have, n - 1 - have)) > 0)
		have += r;
	b[have] = 0;
	close(fd);
	return have;
}

CASE(proc_self)
{
	char b[8192], want[100];
	slurp("/proc/self/status", b, sizeof b);
	sprintf(want, "Pid:\t%d\n", getpid());
	CHECK(strstr(b, want));
	sprintf(want, "PPid:\t%d\n", getppid());
	CHECK(strstr(b, want));
	CHECK(strstr(b, "State:\tR"));
	CHECK(strstr(b, "Threads:\t1\n"));
	CHECK(strstr(b, "VmRSS:"));
	slurp("/proc/self/stat", b, sizeof b);
	EQ(atoi(b), getpid());
	int n = slurp("/proc/self/cmdline", b, sizeof b);
	CHECK(n > 0 && b[n - 1] == 0);
	OK(prctl(PR_SET_NAME, "renamed"));
	slurp("/proc/self/comm", b, sizeof b);
	CHECK(!strcmp(b, "renamed\n"));
	EQ(readlink("/proc/self", b, 100), sprintf(want, "%d", getpid()));
	ssize_t l = OK(readlink("/proc/self/cwd", b, 100));
	b[l] = 0;
	char c[200];
	CHECK(!strcmp(getcwd(c, 200), b));
}

CASE(proc_fd)
{
	tmpdir();
	OK(put_file("f", "hello"));
	int fd = OK(open("f", O_RDONLY));
	char n[50], b[200];
	sprintf(n, "/proc/self/fd/%d", fd);
	ssize_t l = OK(readlink(n, b, 200));
	CHECK(l > 2 && !memcmp(b + l - 2, "/f", 2));
	OK(unlink("f"));
	int g = OK(open(n, O_RDONLY));
	EQ(read(g, b, 10), 5);
	l = OK(readlink(n, b, 200));
	b[l] = 0;
	CHECK(strstr(b, " (deleted)"));
	int p[2];
	OK(pipe(p));
	sprintf(n, "/proc/self/fd/%d", p[0]);
	l = OK(readlink(n, b, 200));
	CHECK(!strncmp(b, "pipe:[", 6));
	sprintf(n, "/proc/self/fdinfo/%d", fd);
	slurp(n, b, 200);
	CHECK(strstr(b, "pos:\t0\n") && strstr(b, "flags:\t"));
}

CASE(proc_files_are_readable)
{
	const char *f[] = {"/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/version", "/proc/filesystems", "/proc/mounts",
			   "/proc/self/mountinfo", "/proc/self/maps", "/proc/self/smaps", "/proc/self/limits", "/proc/self/statm", "/proc/self/io",
			   "/proc/self/cgroup", "/proc/self/oom_score_adj", "/proc/self/auxv", "/proc/self/environ", "/proc/sys/kernel/ostype",
			   "/proc/sys/kernel/hostname", "/proc/sys/kernel/pid_max", "/proc/sys/kernel/random/uuid", "/proc/sys/fs/file-max",
			   "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/cap_last_cap", "/sys/devices/system/cpu/online"};
	char b[65536];
	for (unsigned i = 0; i < sizeof f / sizeof *f; i++)
		if (slurp(f[i], b, sizeof b) <= 0)
			FAIL("%s is empty", f[i]);
	ERR(open("/proc/no-such-file", O_RDONLY), ENOENT);
	ERR(open("/proc/999999/status", O_RDONLY), ENOENT);
	ERR(open("/proc/version", O_CREAT | O_EXCL, 0600), EEXIST);
	CHECK(open("/proc/newfile", O_CREAT | O_RDWR, 0600) < 0);
}

CASE(proc_lists_processes_and_tasks)
{
	pid_t c = CHILD(for (;;) pause());
	DIR *d = opendir("/proc");
	int found = 0;
	struct dirent *e;
	while ((e = readdir(d)))
		found |= atoi(e->d_name) == c;
	CHECK(found);
	char n[60];
	sprintf(n, "/proc/%d/task/%d/status", c, c);
	OK(access(n, R_OK));
	kill(c, SIGKILL);
	REAP(c);
	ERR(access(n, R_OK), ENOENT);
}

CASE(setns_needs_a_namespace)
{
	int fd = OK(open("/dev/null", O_RDONLY));
	ERR(setns(fd, 0), EINVAL);
	ERR(setns(-1, 0), EBADF);
	ERR(unshare(0x1), EINVAL);
}

CASE(kcmp_and_personality)
{
	int fd = OK(open("/dev/null", O_RDONLY)), g = OK(dup(fd)), h = OK(open("/dev/null", O_RDONLY));
	long same = syscall(SYS_kcmp, getpid(), getpid(), 0, fd, g);
	if (same == -1 && errno == ENOSYS)
		SKIP("no kcmp");
	EQ(same, 0);
	CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fd, h) != 0);
	CHECK(syscall(SYS_personality, 0xffffffff) >= 0);
}
