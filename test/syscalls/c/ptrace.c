// ptrace(2): what strace and gdb need.
#include "husk.h"
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/auxv.h>
#include <sys/uio.h>

static volatile int var = 5;

CASE(trace_syscalls)
{
	int st, calls = 0;
	pid_t p = OK(fork());
	if (!p) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		getppid();
		_exit(var + 1);
	}
	CHECK(waitpid(p, &st, 0) == p && WIFSTOPPED(st) && WSTOPSIG(st) == SIGSTOP);
	OK(ptrace(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
	EQ(ptrace(PTRACE_PEEKDATA, p, &var, 0), 5);
	OK(ptrace(PTRACE_POKEDATA, p, &var, 40L));
	for (;;) {
		OK(ptrace(PTRACE_SYSCALL, p, 0, 0));
		EQ(waitpid(p, &st, 0), p);
		if (WIFEXITED(st))
			break;
		CHECK(WIFSTOPPED(st));
		if (WSTOPSIG(st) == (SIGTRAP | 0x80)) {
			struct user_regs_struct r;
			OK(ptrace(PTRACE_GETREGS, p, 0, &r));
			calls += r.orig_rax == SYS_getppid;
		}
	}
	EQ(calls, 2);
	EQ(WEXITSTATUS(st), 41);
}

/* Debuggers read the vdso's symbols and unwind through it. */
CASE(vdso_can_be_read)
{
	char *v = (char *)getauxval(AT_SYSINFO_EHDR), b[4096];
	if (!v)
		return;
	int fd[2], st, mem;
	OK(pipe(fd));
	EQ(write(fd[1], v, 100), 100);
	EQ(read(fd[0], b, 100), 100);
	EQ(memcmp(b, v, 100), 0);
	OK(mem = open("/proc/self/mem", O_RDONLY));
	EQ(pread(mem, b, sizeof b, (off_t)v), (long)sizeof b);
	EQ(memcmp(b, v, sizeof b), 0);
	pid_t p = CHILD({
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(0);
	});
	OK(waitpid(p, &st, 0));
	errno = 0;
	EQ(ptrace(PTRACE_PEEKDATA, p, v + 8, 0), *(long *)(v + 8));
	EQ(errno, 0);
	struct iovec to = {b, 64}, from = {v, 64};
	EQ(process_vm_readv(p, &to, 1, &from, 1, 0), 64);
	EQ(memcmp(b, "\x7f" "ELF", 4), 0);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	OK(waitpid(p, &st, 0));
	CHECK(WIFEXITED(st));
}

CASE(single_step_and_breakpoint)
{
	int st, steps = 0;
	unsigned long ip = 0;
	struct user_regs_struct r;
	pid_t p = OK(fork());
	if (!p) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		for (volatile int i = 0; i < 100; i++)
			;
		asm volatile("int3");
		_exit(3);
	}
	EQ(waitpid(p, &st, 0), p);
	for (int i = 0; i < 50; i++) {
		OK(ptrace(PTRACE_SINGLESTEP, p, 0, 0));
		CHECK(waitpid(p, &st, 0) == p && WIFSTOPPED(st) && WSTOPSIG(st) == SIGTRAP);
		OK(ptrace(PTRACE_GETREGS, p, 0, &r));
		steps += r.rip != ip;
		ip = r.rip;
	}
	CHECK(steps > 40);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	CHECK(waitpid(p, &st, 0) == p && WIFSTOPPED(st) && WSTOPSIG(st) == SIGTRAP);
	OK(ptrace(PTRACE_CONT, p, 0, 0));
	CHECK(waitpid(p, &st, 0) == p && WIFEXITED(st) && WEXITSTATUS(st) == 3);
}

CASE(attach_and_interrupt)
{
	int st;
	pid_t p = CHILD(for (;;) pause());
	OK(ptrace(PTRACE_ATTACH, p, 0, 0));
	CHECK(waitpid(p, &st, 0) == p && WSTOPSIG(st) == SIGSTOP);
	OK(ptrace(PTRACE_DETACH, p, 0, 0));
	OK(kill(p, SIGKILL));
	EQ(WTERMSIG(REAP(p)), SIGKILL);
	p = CHILD(for (;;));
	OK(ptrace(PTRACE_SEIZE, p, 0, 0));
	OK(ptrace(PTRACE_INTERRUPT, p, 0, 0));
	CHECK(waitpid(p, &st, 0) == p && st >> 8 == (SIGTRAP | PTRACE_EVENT_STOP << 8));
	OK(kill(p, SIGKILL));
	EQ(WTERMSIG(REAP(p)), SIGKILL);
}

CASE(exit_event)
{
	for (int how = 0; how < 2; how++) {
		int st;
		unsigned long msg;
		pid_t p = OK(fork());
		if (!p) {
			ptrace(PTRACE_TRACEME, 0, 0, 0);
			raise(SIGSTOP);
			if (how == 1)
				raise(SIGTERM);
			_exit(5);
		}
		EQ(waitpid(p, &st, 0), p);
		OK(ptrace(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEEXIT));
		OK(ptrace(PTRACE_CONT, p, 0, 0));
		EQ(waitpid(p, &st, 0), p);
		if (how == 1) {
			EQ(WSTOPSIG(st), SIGTERM);
			OK(ptrace(PTRACE_CONT, p, 0, SIGTERM));
			EQ(waitpid(p, &st, 0), p);
		}
		EQ(st >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
		OK(ptrace(PTRACE_GETEVENTMSG, p, 0, &msg));
		EQ(msg, how == 1 ? SIGTERM : 5 << 8);
		OK(ptrace(PTRACE_CONT, p, 0, 0));
		EQ(waitpid(p, &st, 0), p);
		CHECK(WIFEXITED(st) || WIFSIGNALED(st));
	}
}
