// ttys: line discipline, pseudo-terminals, job control.
#include "husk.h"
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int m, s;
static struct termios t;
static void mk(void)
{
	m = OK(posix_openpt(O_RDWR | O_NOCTTY));
	OK(grantpt(m));
	OK(unlockpt(m));
	s = OK(open(ptsname(m), O_RDWR | O_NOCTTY));
	OK(tcgetattr(s, &t));
}
static void set(tcflag_t lclear, tcflag_t lset)
{
	t.c_lflag = (t.c_lflag & ~lclear) | lset;
	OK(tcsetattr(s, TCSANOW, &t));
}
static int in(int fd, char *b, int n)
{
	struct pollfd f = {fd, POLLIN};
	if (poll(&f, 1, 2000) != 1)
		FAIL("nothing to read");
	int r = OK(read(fd, b, n));
	b[r] = 0;
	return r;
}

CASE(isatty_and_names)
{
	mk();
	CHECK(isatty(s) && isatty(m));
	CHECK(!strncmp(ptsname(m), "/dev/pts/", 9));
	int z = OK(open("/dev/null", O_RDONLY));
	ERR(tcgetattr(z, &t), ENOTTY);
	struct stat st;
	OK(fstat(s, &st));
	CHECK(S_ISCHR(st.st_mode));
}

CASE(locked_until_unlockpt)
{
	m = OK(posix_openpt(O_RDWR | O_NOCTTY));
	ERR(open(ptsname(m), O_RDWR | O_NOCTTY), EIO);
}

CASE(canonical_lines)
{
	char b[100];
	mk();
	set(ECHO, 0);
	EQ(write(m, "one\ntwo\npart", 12), 12);
	EQ(in(s, b, 99), 4);
	CHECK(!strcmp(b, "one\n"));
	EQ(in(s, b, 2), 2);
	EQ(in(s, b, 99), 2);
	struct pollfd f = {s, POLLIN};
	EQ(poll(&f, 1, 30), 0);
	EQ(write(m, "\n", 1), 1);
	EQ(in(s, b, 99), 5);
}

CASE(editing)
{
	char b[100];
	mk();
	set(ECHO, 0);
	EQ(write(m, "abx\177c\n", 6), 6);
	in(s, b, 99);
	CHECK(!strcmp(b, "abc\n"));
	EQ(write(m, "junk\025new\n", 9), 9);
	in(s, b, 99);
	CHECK(!strcmp(b, "new\n"));
	EQ(write(m, "two words\027\n", 11), 11);
	in(s, b, 99);
	CHECK(!strcmp(b, "two \n"));
	EQ(write(m, "\004", 1), 1);
	EQ(in(s, b, 99), 0);
}

CASE(echo_and_output_processing)
{
	char b[100];
	mk();
	EQ(write(m, "hi\n", 3), 3);
	in(m, b, 99);
	CHECK(!strcmp(b, "hi\r\n"));
	in(s, b, 99);
	EQ(write(s, "a\nb", 3), 3);
	in(m, b, 99);
	CHECK(!strcmp(b, "a\r\nb"));
	EQ(write(m, "\003", 1), 1);
	in(m, b, 99);
	CHECK(!strncmp(b, "^C", 2));
}

CASE(raw_mode)
{
	char b[100];
	mk();
	cfmakeraw(&t);
	OK(tcsetattr(s, TCSANOW, &t));
	EQ(write(m, "a\r\003", 3), 3);
	EQ(in(s, b, 99), 3);
	CHECK(!strcmp(b, "a\r\003"));
	EQ(write(s, "x\n", 2), 2);
	EQ(in(m, b, 99), 2);
	CHECK(!strcmp(b, "x\n"));
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 1;
	OK(tcsetattr(s, TCSANOW, &t));
	EQ(read(s, b, 10), 0);
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 0;
	OK(tcsetattr(s, TCSANOW, &t));
	pid_t c = CHILD({
		for (int i = 0; i < 3; i++) {
			EQ(write(m, "z", 1), 1);
			msleep(10);
		}
	});
	EQ(read(s, b, 10), 3);
	REAP(c);
}

CASE(crlf_input)
{
	char b[100];
	mk();
	set(ECHO, 0);
	EQ(write(m, "x\r", 2), 2);
	in(s, b, 99);
	CHECK(!strcmp(b, "x\n"));
}

CASE(window_size)
{
	mk();
	struct winsize w = {24, 80, 0, 0}, v;
	OK(ioctl(m, TIOCSWINSZ, &w));
	OK(ioctl(s, TIOCGWINSZ, &v));
	CHECK(v.ws_row == 24 && v.ws_col == 80);
	int n;
	EQ(write(m, "abc\n", 4), 4);
	msleep(20);
	OK(ioctl(s, FIONREAD, &n));
	EQ(n, 4);
	OK(tcflush(s, TCIFLUSH));
	OK(ioctl(s, FIONREAD, &n));
	EQ(n, 0);
}

CASE(hangup)
{
	char b[10];
	mk();
	close(m);
	EQ(read(s, b, 10), 0);
	ERR(write(s, "x", 1), EIO);
	struct pollfd f = {s, POLLIN | POLLOUT};
	EQ(poll(&f, 1, 0), 1);
	CHECK(f.revents & POLLHUP);
	mk();
	close(s);
	ERR(read(m, b, 10), EIO);
}

static volatile int got;
static void on(int x) { got = x; }

CASE(controlling_terminal)
{
	mk();
	int st = REAP(CHILD({
		setsid();
		ERR(open("/dev/tty", O_RDWR), ENXIO);
		OK(ioctl(s, TIOCSCTTY, 0));
		int d = OK(open("/dev/tty", O_RDWR));
		EQ(tcgetpgrp(d), getpid());
		EQ(tcgetsid(d), getpid());
		OK(ioctl(d, TIOCNOTTY));
	}));
	CHECK(st == 0 || WTERMSIG(st) == SIGHUP);
	ERR(tcgetpgrp(s), ENOTTY);
}

CASE(interrupt_character)
{
	mk();
	pid_t c = CHILD({
		setsid();
		OK(ioctl(s, TIOCSCTTY, 0));
		signal(SIGINT, on);
		EQ(write(s, "R", 1), 1);
		while (!got)
			msleep(5);
		_exit(got);
	});
	char b[10];
	in(m, b, 1);
	EQ(write(m, "\003", 1), 1);
	EQ(WEXITSTATUS(REAP(c)), SIGINT);
}

CASE(background_read_stops)
{
	mk();
	pid_t c = CHILD({
		setsid();
		OK(ioctl(s, TIOCSCTTY, 0));
		pid_t bg = fork();
		if (bg == 0) {
			setpgid(0, 0);
			char b;
			OK(read(s, &b, 1));
			_exit(0);
		}
		setpgid(bg, bg);
		int st;
		EQ(waitpid(bg, &st, WUNTRACED), bg);
		CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == SIGTTIN);
		OK(tcsetpgrp(s, bg));
		OK(kill(bg, SIGCONT));
		EQ(waitpid(bg, &st, 0), bg);
		EQ(st, 0);
		signal(SIGTTOU, SIG_IGN);
		OK(tcsetpgrp(s, getpgrp()));
	});
	msleep(100);
	EQ(write(m, "x\n", 2), 2);
	EQ(REAP(c), 0);
}

CASE(suspend_character)
{
	mk();
	pid_t c = CHILD({
		setsid();
		OK(ioctl(s, TIOCSCTTY, 0));
		signal(SIGTTOU, SIG_IGN);
		pid_t fg = fork();
		if (fg == 0) {
			setpgid(0, 0);
			signal(SIGTTOU, SIG_IGN);
			tcsetpgrp(s, getpid());
			EQ(write(s, "R", 1), 1);
			for (;;)
				pause();
		}
		int st;
		EQ(waitpid(fg, &st, WUNTRACED), fg);
		CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == SIGTSTP);
		kill(fg, SIGKILL);
	});
	char b[10];
	in(m, b, 1);
	EQ(write(m, "\032", 1), 1);
	EQ(REAP(c), 0);
}

CASE(closing_master_hangs_up_session)
{
	mk();
	pid_t c = CHILD({
		close(m);
		setsid();
		OK(ioctl(s, TIOCSCTTY, 0));
		EQ(write(s, "R", 1), 1);
		for (;;)
			pause();
	});
	char b[10];
	in(m, b, 1);
	close(m);
	EQ(WTERMSIG(REAP(c)), SIGHUP);
}

CASE(sigwinch)
{
	mk();
	pid_t c = CHILD({
		setsid();
		OK(ioctl(s, TIOCSCTTY, 0));
		signal(SIGWINCH, on);
		EQ(write(s, "R", 1), 1);
		while (!got)
			msleep(5);
		struct winsize w;
		OK(ioctl(s, TIOCGWINSZ, &w));
		_exit(w.ws_col);
	});
	char b[10];
	in(m, b, 1);
	struct winsize w = {10, 77, 0, 0};
	OK(ioctl(m, TIOCSWINSZ, &w));
	EQ(WEXITSTATUS(REAP(c)), 77);
}
