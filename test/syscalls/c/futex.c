// futex(2), POSIX threads primitives above it, robust lists.
#include "husk.h"
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>

static long fx(volatile int *a, int op, int v, void *t, volatile int *b, int v3) { return syscall(SYS_futex, a, op, v, t, b, v3); }
static volatile int w, w2;
static volatile int woken;

CASE(wait_mismatch_and_timeout)
{
	ERR(fx(&w, FUTEX_WAIT, 1, 0, 0, 0), EAGAIN);
	struct timespec t = {0, 30000000};
	long long s = now_ms();
	ERR(fx(&w, FUTEX_WAIT, 0, &t, 0, 0), ETIMEDOUT);
	CHECK(now_ms() - s >= 29);
	EQ(fx(&w, FUTEX_WAKE, 1, 0, 0, 0), 0);
	ERR(fx((int *)((char *)&w + 1), FUTEX_WAIT, 0, 0, 0, 0), EINVAL);
	ERR(fx((int *)8, FUTEX_WAIT, 0, 0, 0, 0), EFAULT);
	ERR(fx(&w, 99, 0, 0, 0, 0), ENOSYS);
	t.tv_nsec = 1000000000;
	ERR(fx(&w, FUTEX_WAIT, 0, &t, 0, 0), EINVAL);
	ERR(fx(&w, FUTEX_WAIT_BITSET, 0, 0, 0, 0), EINVAL);
}

CASE(absolute_timeout)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += 30000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	ERR(fx(&w, FUTEX_WAIT_BITSET, 0, &t, 0, -1), ETIMEDOUT);
	clock_gettime(CLOCK_REALTIME, &t);
	ERR(fx(&w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, -1), ETIMEDOUT);
}

static volatile int tids[8], ntids;

// sleeping waits until n threads of waiter sleep.
static void sleeping(int n)
{
	while (ntids < n)
		msleep(1);
	for (int i = 0, seen = 0; i < n; seen < 3 ? msleep(1) : (i++, seen = 0)) {
		char name[64], b[200] = "";
		snprintf(name, sizeof name, "/proc/self/task/%d/stat", tids[i]);
		int fd = OK(open(name, O_RDONLY));
		OK(read(fd, b, sizeof b - 1));
		close(fd);
		char *state = strrchr(b, ')');
		seen = state && state[2] == 'S' ? seen + 1 : 0;
	}
}

static void *waiter(void *x)
{
	tids[__sync_fetch_and_add(&ntids, 1)] = syscall(SYS_gettid);
	if (fx(&w, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0) == 0)
		__sync_fetch_and_add(&woken, 1);
	return 0;
}

CASE(wake_counts)
{
	pthread_t t[5];
	for (int i = 0; i < 5; i++)
		pthread_create(&t[i], 0, waiter, 0);
	sleeping(5);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, 2, 0, 0, 0), 2);
	while (woken < 2)
		msleep(1);
	msleep(20);
	EQ(woken, 2);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0), 3);
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], 0);
	EQ(woken, 5);
}

CASE(requeue)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], 0, waiter, 0);
	sleeping(4);
	ERR(fx(&w, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &w2, 5), EAGAIN);
	EQ(fx(&w, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &w2, 0), 4);
	EQ(fx(&w, FUTEX_WAKE_PRIVATE, 10, 0, 0, 0), 0);
	EQ(fx(&w2, FUTEX_WAKE_PRIVATE, 10, 0, 0, 0), 3);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], 0);
}

CASE(wake_op)
{
	w2 = 5;
	EQ(fx(&w, FUTEX_WAKE_OP, 1, (void *)1, &w2, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)), 0);
	EQ(w2, 8);
}

CASE(shared_between_processes)
{
	volatile int *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t c = CHILD(EQ(fx(s, FUTEX_WAIT, 0, 0, 0, 0), 0));
	while (fx(s, FUTEX_WAKE, 1, 0, 0, 0) == 0)
		msleep(1);
	EQ(REAP(c), 0);
}

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static long counter;
static void *locker(void *x)
{
	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&m);
		counter++;
		pthread_mutex_unlock(&m);
	}
	return 0;
}

CASE(mutex_contention)
{
	pthread_t t[8];
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], 0, locker, 0);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], 0);
	EQ(counter, 40000);
}

static int turn;
static void *pong(void *x)
{
	pthread_mutex_lock(&m);
	for (int i = 0; i < 1000; i++) {
		while (turn != 1)
			pthread_cond_wait(&cv, &m);
		turn = 0;
		pthread_cond_broadcast(&cv);
	}
	pthread_mutex_unlock(&m);
	return 0;
}

CASE(condition_ping_pong)
{
	pthread_t t;
	pthread_create(&t, 0, pong, 0);
	pthread_mutex_lock(&m);
	for (int i = 0; i < 1000; i++) {
		turn = 1;
		pthread_cond_broadcast(&cv);
		while (turn != 0)
			pthread_cond_wait(&cv, &m);
	}
	pthread_mutex_unlock(&m);
	pthread_join(t, 0);
}

static void *die_holding(void *x)
{
	pthread_mutex_lock(x);
	return 0;
}

CASE(robust_mutex)
{
	pthread_mutexattr_t a;
	pthread_mutex_t r;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&r, &a);
	pthread_t t;
	pthread_create(&t, 0, die_holding, &r);
	pthread_join(t, 0);
	EQ(pthread_mutex_lock(&r), EOWNERDEAD);
	EQ(pthread_mutex_consistent(&r), 0);
	EQ(pthread_mutex_unlock(&r), 0);
}

CASE(robust_mutex_of_a_process)
{
	pthread_mutexattr_t a;
	pthread_mutex_t *r = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(r, &a);
	REAP(CHILD({
		pthread_mutex_lock(r);
		_exit(0);
	}));
	EQ(pthread_mutex_lock(r), EOWNERDEAD);
}

static void *pi_locker(void *x)
{
	pthread_mutex_lock(x);
	counter++;
	pthread_mutex_unlock(x);
	return 0;
}

CASE(priority_inheritance_mutex)
{
	pthread_mutexattr_t a;
	pthread_mutex_t p;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	EQ(pthread_mutex_init(&p, &a), 0);
	pthread_mutex_lock(&p);
	pthread_t t[3];
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], 0, pi_locker, &p);
	msleep(50);
	EQ(counter, 0);
	pthread_mutex_unlock(&p);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], 0);
	EQ(counter, 3);
}

CASE(semaphore_between_processes)
{
	sem_t *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	OK(sem_init(s, 1, 0));
	pid_t c = CHILD({
		for (int i = 0; i < 100; i++)
			OK(sem_post(s));
	});
	for (int i = 0; i < 100; i++)
		OK(sem_wait(s));
	EQ(REAP(c), 0);
	ERR(sem_trywait(s), EAGAIN);
}

static void on(int s) {}

CASE(wait_interrupted)
{
	struct sigaction a = {.sa_handler = on};
	sigaction(SIGALRM, &a, 0);
	ualarm(50000, 50000); // again, in case that the first one comes before the wait
	ERR(fx(&w, FUTEX_WAIT, 0, 0, 0, 0), EINTR);
}

CASE(rwlock_and_barrier)
{
	pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
	EQ(pthread_rwlock_rdlock(&l), 0);
	EQ(pthread_rwlock_tryrdlock(&l), 0);
	EQ(pthread_rwlock_trywrlock(&l), EBUSY);
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec = (t.tv_nsec + 20000000) % 1000000000;
	EQ(pthread_rwlock_timedwrlock(&l, &t), ETIMEDOUT);
}

/* A thread of another process that waits is woken soon, whatever the waker does next. */
CASE(wakes_though_the_waker_goes_on)
{
	int *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile int *got = s + 64;
	for (int i = 0; i < 60; i++) {
		*s = *got = 0;
		pid_t c = CHILD({
			usleep(i & 4 ? 2000 : 0);
			__atomic_store_n(s, 1, __ATOMIC_SEQ_CST);
			OK(fx(s, FUTEX_WAKE, 1, 0, 0, 0));
			while (i % 3 && !*got)
				if (i % 3 == 2)
					syscall(SYS_getppid);
		});
		while (!__atomic_load_n(s, __ATOMIC_SEQ_CST))
			fx(s, FUTEX_WAIT, 0, 0, 0, 0);
		*got = 1;
		EQ(REAP(c), 0);
	}
}
