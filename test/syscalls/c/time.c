// clocks, sleeps, POSIX timers, rusage.
#include "husk.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <pthread.h>

CASE(clocks_advance)
{
	clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_TAI};
	for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
		struct timespec a, b, r;
		OK(clock_gettime(ids[i], &a));
		OK(syscall(SYS_clock_gettime, ids[i], &b));
		CHECK(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
		CHECK(b.tv_sec - a.tv_sec < 5);
		OK(clock_getres(ids[i], &r));
		CHECK(r.tv_sec == 0 && r.tv_nsec > 0);
	}
	struct timespec t;
	ERR(clock_gettime(50, &t), EINVAL);
	ERR(clock_settime(CLOCK_MONOTONIC, &t), EINVAL);
}

CASE(vdso_agrees_with_system_call)
{
	for (int i = 0; i < 100; i++) {
		struct timespec a, b, c;
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a);
		clock_gettime(CLOCK_MONOTONIC, &b);
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &c);
		long long x = a.tv_sec * 1000000000LL + a.tv_nsec, y = b.tv_sec * 1000000000LL + b.tv_nsec, z = c.tv_sec * 1000000000LL + c.tv_nsec;
		CHECK(x <= y && y <= z);
	}
	struct timeval v;
	OK(gettimeofday(&v, 0));
	CHECK(labs(time(0) - v.tv_sec) <= 1);
}

CASE(cpu_clocks)
{
	struct timespec a, b;
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a));
	long long end = now_ms() + 50;
	while (now_ms() < end)
		;
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b));
	long d = (b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
	CHECK(d > 1000000);
	OK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a));
	msleep(100);
	OK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b));
	d = (b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
	CHECK(d < 80000000);
	struct tms t;
	CHECK(times(&t) != (clock_t)-1);
}

CASE(sleeps)
{
	long long t = now_ms();
	struct timespec s = {0, 30000000};
	OK(nanosleep(&s, 0));
	CHECK(now_ms() - t >= 29);
	clock_gettime(CLOCK_MONOTONIC, &s);
	s.tv_nsec += 30000000;
	if (s.tv_nsec >= 1000000000)
		s.tv_sec++, s.tv_nsec -= 1000000000;
	t = now_ms();
	EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &s, 0), 0);
	CHECK(now_ms() - t >= 28);
	s.tv_nsec = -1;
	ERR(nanosleep(&s, 0), EINVAL);
	EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &s, 0), EINVAL);
	s = (struct timespec){0, 0};
	OK(nanosleep(&s, 0));
}

static volatile int hits;
static siginfo_t last;
static void on(int s, siginfo_t *i, void *u)
{
	hits++;
	last = *i;
}

CASE(posix_timer_signal)
{
	struct sigaction a = {.sa_sigaction = on, .sa_flags = SA_SIGINFO};
	sigaction(SIGRTMIN, &a, 0);
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
	timer_t t;
	OK(timer_create(CLOCK_MONOTONIC, &e, &t));
	struct itimerspec v = {{0, 10000000}, {0, 10000000}}, o;
	OK(timer_settime(t, 0, &v, 0));
	while (hits < 3)
		pause();
	EQ(last.si_code, SI_TIMER);
	EQ(last.si_value.sival_int, 42);
	OK(timer_gettime(t, &o));
	EQ(o.it_interval.tv_nsec, 10000000);
	OK(timer_getoverrun(t) >= 0);
	OK(timer_delete(t));
	hits = 0;
	msleep(40);
	EQ(hits, 0);
	ERR(syscall(SYS_timer_delete, 12345), EINVAL);
}

CASE(overrun_counts)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigprocmask(SIG_BLOCK, &m, 0);
	timer_t t;
	OK(timer_create(CLOCK_REALTIME, &e, &t));
	struct itimerspec v = {{0, 5000000}, {0, 5000000}};
	OK(timer_settime(t, 0, &v, 0));
	msleep(60);
	siginfo_t i;
	EQ(sigwaitinfo(&m, &i), SIGUSR1);
	CHECK(i.si_overrun >= 3);
}

static void *spin(void *x)
{
	while (!hits)
		;
	return 0;
}

CASE(cpu_timer_fires)
{
	struct sigaction a = {.sa_sigaction = on, .sa_flags = SA_SIGINFO};
	sigaction(SIGPROF, &a, 0);
	struct itimerval v = {{0, 0}, {0, 20000}};
	OK(setitimer(ITIMER_PROF, &v, 0));
	spin(0);
}

/* A CPU timer is in time though a later limit is waited for already. */
CASE(cpu_timer_before_limit)
{
	struct rlimit r = {100000, 100000};
	OK(setrlimit(RLIMIT_CPU, &r));
	struct sigaction a = {.sa_sigaction = on, .sa_flags = SA_SIGINFO};
	sigaction(SIGPROF, &a, 0);
	struct itimerval v = {{0, 0}, {0, 20000}};
	OK(setitimer(ITIMER_PROF, &v, 0));
	for (long long end = now_ms() + 3000; !hits && now_ms() < end;)
		;
	OK(hits ? 0 : -1);
}

CASE(rlimit_cpu_sends_sigxcpu)
{
	int st = REAP(CHILD({
		struct rlimit r = {1, 5};
		setrlimit(RLIMIT_CPU, &r);
		for (;;)
			;
	}));
	EQ(WTERMSIG(st), SIGXCPU);
}

CASE(cpu_limit_is_inherited)
{
	pid_t c = CHILD({
		struct rlimit r = {1, 1};
		setrlimit(RLIMIT_CPU, &r);
		pid_t d = CHILD({
			for (;;)
				;
		});
		int st;
		OK(waitpid(d, &st, 0));
		_exit(WTERMSIG(st));
	});
	int st;
	OK(waitpid(c, &st, 0));
	EQ(WEXITSTATUS(st), SIGKILL);
}

static double cpu_of(int who)
{
	struct rusage r;
	OK(getrusage(who, &r));
	return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void *spin_300(void *unused)
{
	for (long long end = now_ms() + 300; now_ms() < end;)
		;
	return 0;
}

/* Many at once use no more processor time than there is. */
CASE(cpu_time_is_shared)
{
	cpu_set_t set;
	OK(sched_getaffinity(0, sizeof set, &set));
	int cpus = CPU_COUNT(&set), n = 4 * cpus + 2;
	if (n > 64)
		return;
	double start = now_ms() / 1e3;
	for (int i = 0; i < n; i++)
		CHILD({ spin_300(0); _exit(0); });
	for (int i = 0; i < n; i++)
		OK(wait(0));
	double all = (now_ms() / 1e3 - start) * cpus, used = cpu_of(RUSAGE_CHILDREN);
	CHECK(used > 0.01);
	CHECK(used < all * 1.2 + 0.1);

	pthread_t t[64];
	struct timespec c;
	double before = cpu_of(RUSAGE_SELF);
	start = now_ms() / 1e3;
	for (int i = 0; i < n; i++)
		EQ(pthread_create(&t[i], 0, spin_300, 0), 0);
	msleep(200);
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c));
	CHECK(c.tv_sec + c.tv_nsec / 1e9 - before < (now_ms() / 1e3 - start) * cpus * 1.2 + 0.1);
	for (int i = 0; i < n; i++)
		EQ(pthread_join(t[i], 0), 0);
	all = (now_ms() / 1e3 - start) * cpus;
	CHECK(cpu_of(RUSAGE_SELF) - before < all * 1.2 + 0.1);
}

CASE(getrusage_self)
{
	struct rusage r;
	OK(getrusage(RUSAGE_SELF, &r));
	CHECK(r.ru_maxrss > 0);
	OK(getrusage(RUSAGE_THREAD, &r));
	ERR(getrusage(77, &r), EINVAL);
}

CASE(itimer_errors)
{
	struct itimerval v = {{0, 0}, {0, 2000000}};
	ERR(setitimer(ITIMER_REAL, &v, 0), EINVAL);
	ERR(getitimer(9, &v), EINVAL);
	struct timex x = {0};
	CHECK(adjtimex(&x) >= 0);
}
