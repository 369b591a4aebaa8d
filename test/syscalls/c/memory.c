// mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2) and friends.
#include "husk.h"
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/shm.h>

#define PG 4096UL
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static sigjmp_buf env;
static void on_fault(int s) { siglongjmp(env, s); }

// faults tells which signal the access gives, 0 if none.
static int faults(volatile char *p, int write)
{
	struct sigaction a = {.sa_handler = on_fault};
	sigaction(SIGSEGV, &a, 0);
	sigaction(SIGBUS, &a, 0);
	int s = sigsetjmp(env, 1);
	if (s)
		return s;
	if (write)
		*p = 1;
	else
		(void)*p;
	return 0;
}

static char *map(size_t n, int prot)
{
	char *p = mmap(0, n, prot, ANON, -1, 0);
	if (p == MAP_FAILED)
		FAIL("mmap");
	return p;
}

CASE(anonymous_is_zero_and_writable)
{
	char *p = map(1 << 20, PROT_READ | PROT_WRITE);
	for (size_t i = 0; i < 1 << 20; i += PG) {
		CHECK(p[i] == 0);
		p[i] = 1;
	}
	OK(munmap(p, 1 << 20));
	EQ(faults(p, 0), SIGSEGV);
}

CASE(freed_memory_is_zero_again)
{
	for (int r = 0; r < 20; r++) {
		char *p = map(256 * PG, PROT_READ | PROT_WRITE);
		for (size_t i = 0; i < 256 * PG; i += 512)
			CHECK(p[i] == 0);
		memset(p, 0xaa, 256 * PG);
		OK(munmap(p, 256 * PG));
	}
}

CASE(mmap_errors)
{
	ERR(mmap(0, 0, PROT_READ, ANON, -1, 0), EINVAL);
	ERR(mmap(0, PG, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
	ERR(mmap((void *)(16 * PG + 1), PG, PROT_READ, ANON | MAP_FIXED, -1, 0), EINVAL);
	ERR(mmap(0, PG, PROT_READ, MAP_PRIVATE, 99, 0), EBADF);
	ERR(mmap(0, 1UL << 48, PROT_READ, ANON, -1, 0), ENOMEM);
	ERR(mmap(0, -PG, PROT_READ, ANON, -1, 0), ENOMEM);
	int fd = OK(open("/proc/self/exe", O_RDONLY));
	ERR(mmap(0, PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
	ERR(mmap(0, PG, PROT_READ, MAP_PRIVATE, fd, 1), EINVAL);
	ERR(munmap((void *)1, PG), EINVAL);
	ERR(munmap(0, 0), EINVAL);
}

CASE(fixed_replaces_and_noreplace_refuses)
{
	char *p = map(3 * PG, PROT_READ | PROT_WRITE);
	memset(p, 7, 3 * PG);
	CHECK(mmap(p + PG, PG, PROT_READ, ANON | MAP_FIXED, -1, 0) == p + PG);
	CHECK(p[0] == 7 && p[PG] == 0 && p[2 * PG] == 7);
	ERR(mmap(p + PG, PG, PROT_READ, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}

CASE(munmap_in_the_middle)
{
	char *p = map(3 * PG, PROT_READ | PROT_WRITE);
	memset(p, 7, 3 * PG);
	OK(munmap(p + PG, PG));
	EQ(faults(p + PG, 0), SIGSEGV);
	CHECK(p[0] == 7 && p[2 * PG] == 7);
	OK(munmap(p, 3 * PG));
}

CASE(mprotect_changes)
{
	char *p = map(4 * PG, PROT_READ | PROT_WRITE);
	memset(p, 3, 4 * PG);
	OK(mprotect(p + PG, PG, PROT_READ));
	EQ(faults(p + PG, 1), SIGSEGV);
	EQ(faults(p + PG, 0), 0);
	EQ(faults(p + 2 * PG, 1), 0);
	OK(mprotect(p, 4 * PG, PROT_NONE));
	EQ(faults(p, 0), SIGSEGV);
	OK(mprotect(p, 4 * PG, PROT_READ | PROT_WRITE));
	CHECK(p[PG] == 3);
	ERR(mprotect(p + 1, PG, PROT_READ), EINVAL);
	OK(munmap(p + PG, PG));
	ERR(mprotect(p, 4 * PG, PROT_READ), ENOMEM);
}

CASE(execute_generated_code)
{
	char *p = map(PG, PROT_READ | PROT_WRITE);
	memcpy(p, "\xb8\x2a\0\0\0\xc3", 6);
	OK(mprotect(p, PG, PROT_READ | PROT_EXEC));
	EQ(((int (*)(void))p)(), 42);
	OK(mprotect(p, PG, PROT_READ | PROT_WRITE | PROT_EXEC));
	p[1] = 43;
	EQ(((int (*)(void))p)(), 43);
}

CASE(private_file_mapping)
{
	tmpdir();
	OK(put_file("f", "hello world"));
	int fd = OK(open("f", O_RDWR));
	char *p = mmap(0, PG, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(!memcmp(p, "hello world\0", 12));
	p[0] = 'J';
	char b[12] = "";
	EQ(pread(fd, b, 11, 0), 11);
	CHECK(!strcmp(b, "hello world"));
	CHECK(!strcmp(p, "Jello world"));
}

CASE(shared_file_mapping)
{
	tmpdir();
	OK(put_file("f", "hello world"));
	int fd = OK(open("f", O_RDWR));
	char *p = mmap(0, PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *q = mmap(0, PG, PROT_READ, MAP_SHARED, fd, 0);
	p[0] = 'J';
	CHECK(q[0] == 'J');
	char b[12] = "";
	EQ(pread(fd, b, 11, 0), 11);
	CHECK(!strcmp(b, "Jello world"));
	EQ(pwrite(fd, "M", 1, 0), 1);
	CHECK(p[0] == 'M' && q[0] == 'M');
	OK(msync(p, PG, MS_SYNC));
	ERR(msync(p, PG, MS_SYNC | MS_ASYNC), EINVAL);
}

CASE(truncated_file_gives_sigbus)
{
	tmpdir();
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	OK(ftruncate(fd, 4 * PG));
	char *p = mmap(0, 4 * PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EQ(faults(p + 3 * PG, 1), 0);
	OK(ftruncate(fd, PG));
	EQ(faults(p + 3 * PG, 0), SIGBUS);
	EQ(faults(p, 1), 0);
	// The kernel, too, must survive a buffer there.
	int pfd[2];
	OK(pipe(pfd));
	ERR(write(pfd[1], p + 3 * PG, 10), EFAULT);
}

CASE(mapping_survives_close_and_unlink)
{
	tmpdir();
	OK(put_file("f", "data"));
	int fd = OK(open("f", O_RDONLY));
	char *p = mmap(0, PG, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	OK(unlink("f"));
	CHECK(!strcmp(p, "data"));
}

CASE(mremap_grow_and_move)
{
	char *p = map(2 * PG, PROT_READ | PROT_WRITE);
	strcpy(p, "abc");
	char *q = mremap(p, 2 * PG, 64 * PG, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && !strcmp(q, "abc"));
	q[63 * PG] = 1;
	CHECK(mremap(q, 64 * PG, PG, 0) == q);
	EQ(faults(q + PG, 0), SIGSEGV);
	char *r = map(PG, PROT_READ);
	CHECK(mremap(q, PG, PG, MREMAP_MAYMOVE | MREMAP_FIXED, r) == r);
	CHECK(!strcmp(r, "abc"));
	EQ(faults(q, 0), SIGSEGV);
	ERR(mremap(r, PG, 0, 0), EINVAL);
	ERR(mremap(r + 1, PG, PG, 0), EINVAL);
	ERR(mremap(q, PG, 2 * PG, MREMAP_MAYMOVE), EFAULT);
}

CASE(mremap_without_room)
{
	char *p = map(3 * PG, PROT_READ | PROT_WRITE);
	ERR(mremap(p, PG, 2 * PG, 0), ENOMEM);
}

CASE(brk_moves)
{
	char *b = sbrk(0);
	CHECK(sbrk(100 * PG) == b);
	memset(b, 5, 100 * PG);
	CHECK(sbrk(-50 * (long)PG) == b + 100 * PG);
	CHECK(sbrk(50 * PG) != (void *)-1);
	CHECK(b[60 * PG] == 0);
	CHECK(b[10 * PG] == 5);
}

CASE(madvise_dontneed)
{
	char *p = map(4 * PG, PROT_READ | PROT_WRITE);
	memset(p, 9, 4 * PG);
	OK(madvise(p + PG, PG, MADV_DONTNEED));
	CHECK(p[0] == 9 && p[PG] == 0 && p[2 * PG] == 9);
	ERR(madvise(p + 1, PG, MADV_DONTNEED), EINVAL);
	ERR(madvise(p, PG, 12345), EINVAL);
	OK(munmap(p, PG));
	ERR(madvise(p, 2 * PG, MADV_DONTNEED), ENOMEM);
}

CASE(madvise_wipeonfork_dontfork)
{
	char *p = map(PG, PROT_READ | PROT_WRITE), *q = map(PG, PROT_READ | PROT_WRITE);
	*p = *q = 1;
	OK(madvise(p, PG, MADV_WIPEONFORK));
	OK(madvise(q, PG, MADV_DONTFORK));
	EQ(REAP(CHILD({
		   EQ(*p, 0);
		   EQ(faults(q, 0), SIGSEGV);
	   })),
	   0);
	CHECK(*p == 1 && *q == 1);
}

CASE(mincore_and_mlock)
{
	char *p = map(4 * PG, PROT_READ | PROT_WRITE);
	unsigned char v[4];
	p[0] = 1;
	OK(mincore(p, 4 * PG, v));
	CHECK(v[0] & 1);
	ERR(mincore(p + 1, PG, v), EINVAL);
	OK(mlock(p, 2 * PG));
	OK(munlock(p, 2 * PG));
	OK(munmap(p, 4 * PG));
	ERR(mincore(p, PG, v), ENOMEM);
	ERR(mlock(p, PG), ENOMEM);
}

CASE(cow_after_fork_both_ways)
{
	char *p = map(64 * PG, PROT_READ | PROT_WRITE);
	for (int i = 0; i < 64; i++)
		p[i * PG] = i;
	int a[2];
	OK(pipe(a));
	pid_t c = CHILD({
		char x;
		if (read(a[0], &x, 1) != 1)
			_exit(2);
		for (int i = 0; i < 64; i++)
			if (p[i * PG] != i)
				_exit(3);
		memset(p, 0x55, 64 * PG);
	});
	memset(p, 0x66, 64 * PG);
	EQ(write(a[1], "x", 1), 1);
	EQ(REAP(c), 0);
	for (int i = 0; i < 64; i++)
		CHECK(p[i * PG] == 0x66);
}

CASE(kernel_writes_break_cow)
{
	char *p = map(PG, PROT_READ | PROT_WRITE);
	strcpy(p, "parent");
	int a[2];
	OK(pipe(a));
	EQ(write(a[1], "child!", 7), 7);
	EQ(REAP(CHILD({
		   EQ(read(a[0], p, 7), 7);
		   CHECK(!strcmp(p, "child!"));
	   })),
	   0);
	CHECK(!strcmp(p, "parent"));
}

CASE(bad_pointers_give_efault)
{
	char *p = map(PG, PROT_READ);
	int a[2];
	OK(pipe(a));
	EQ(write(a[1], "x", 1), 1);
	ERR(read(a[0], p, 1), EFAULT);
	ERR(write(a[1], (void *)8, 1), EFAULT);
	ERR(pipe((int *)p), EFAULT);
	ERR(open((char *)8, 0), EFAULT);
	ERR(syscall(SYS_stat, "/", p), EFAULT);
	ERR(syscall(SYS_gettimeofday, 8, 0), EFAULT);
	ERR(write(a[1], (void *)-1, 1), EFAULT);
	ERR(syscall(SYS_nanosleep, -8L, 0), EFAULT);
}

CASE(partial_copies)
{
	char *p = map(2 * PG, PROT_READ | PROT_WRITE);
	OK(munmap(p + PG, PG));
	int a[2];
	OK(pipe(a));
	char b[20];
	EQ(write(a[1], "0123456789", 10), 10);
	EQ(read(a[0], p + PG - 4, 4), 4);
	CHECK(!memcmp(p + PG - 4, "0123", 4));
	ssize_t n = read(a[0], p + PG - 4, 10);
	CHECK(n == 4 || (n == -1 && errno == EFAULT));
	struct iovec v[2] = {{b, 4}, {p + PG - 2, 2}};
	EQ(writev(a[1], v, 2), 6);
}

CASE(stack_grows)
{
	volatile char big[4 << 20];
	for (size_t i = sizeof big; i >= 4096; i -= 4096)
		big[i - 1] = 1;
	EQ(big[sizeof big - 1], 1);
}

CASE(stack_overflow_is_fatal)
{
	int st = REAP(CHILD({
		struct rlimit r = {1 << 20, 1 << 20};
		setrlimit(RLIMIT_STACK, &r);
		volatile char *p = (char *)__builtin_frame_address(0);
		for (;;)
			*(p -= 4096) = 1;
	}));
	EQ(WTERMSIG(st), SIGSEGV);
}

CASE(rlimit_as)
{
	struct rlimit r = {200 << 20, 200 << 20};
	OK(setrlimit(RLIMIT_AS, &r));
	ERR(mmap(0, 300 << 20, PROT_READ, ANON, -1, 0), ENOMEM);
	CHECK(mmap(0, 10 << 20, PROT_READ, ANON, -1, 0) != MAP_FAILED);
}

CASE(memfd)
{
	int fd = OK(memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	OK(ftruncate(fd, 2 * PG));
	char *p = mmap(0, 2 * PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	strcpy(p + PG, "shared");
	EQ(REAP(CHILD(strcpy(p + PG, "by child"))), 0);
	CHECK(!strcmp(p + PG, "by child"));
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	ERR(ftruncate(fd, PG), EPERM);
	ERR(ftruncate(fd, 3 * PG), EPERM);
	OK(munmap(p, 2 * PG));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
	ERR(write(fd, "x", 1), EPERM);
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), EPERM);
}

CASE(process_vm)
{
	char *p = map(PG, PROT_READ | PROT_WRITE), b[10];
	strcpy(p, "original");
	int a[2];
	OK(pipe(a));
	pid_t c = CHILD({
		strcpy(p, "of child");
		if (write(a[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	});
	EQ(read(a[0], b, 1), 1);
	struct iovec l = {b, 9}, r = {p, 9};
	EQ(process_vm_readv(c, &l, 1, &r, 1, 0), 9);
	CHECK(!strcmp(b, "of child"));
	CHECK(!strcmp(p, "original"));
	kill(c, SIGKILL);
	REAP(c);
	ERR(process_vm_readv(c, &l, 1, &r, 1, 0), ESRCH);
}

CASE(sysv_shared_memory)
{
	int id = OK(shmget(IPC_PRIVATE, 2 * PG, 0600 | IPC_CREAT));
	char *p = shmat(id, 0, 0);
	CHECK(p != (void *)-1);
	EQ(REAP(CHILD(strcpy(p, "hi"))), 0);
	CHECK(!strcmp(p, "hi"));
	struct shmid_ds d;
	OK(shmctl(id, IPC_STAT, &d));
	EQ(d.shm_nattch, 1);
	EQ(d.shm_segsz, 2 * PG);
	OK(shmctl(id, IPC_RMID, 0));
	CHECK(!strcmp(p, "hi"));
	OK(shmdt(p));
	EQ(faults(p, 0), SIGSEGV);
	ERR(shmdt(p), EINVAL);
}

CASE(maps_lists_a_mapping)
{
	char *p = map(5 * PG, PROT_READ);
	char want[64], line[512];
	sprintf(want, "%lx-", (unsigned long)p);
	FILE *f = fopen("/proc/self/maps", "r");
	CHECK(f);
	int found = 0, stack = 0;
	while (fgets(line, sizeof line, f)) {
		found |= !strncmp(line, want, strlen(want)) || (strstr(line, " r--p ") != 0);
		stack |= strstr(line, "[stack]") != 0;
	}
	CHECK(found && stack);
}

/* Near max_map_count(5), changes are refused and the process lives: mprotect(2) and munmap(2) of a part say ENOMEM. */
CASE(too_many_mappings)
{
	long n = 33500, k = 0;
	LIMIT(3 * HUSK_CASE_SECONDS); /* some 35000 calls, each of which takes a while where a tracer and others share a processor */
	char *p = mmap(0, 2 * n * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(p != (void *)-1);
	p[0] = 'a';
	while (k < n && !mprotect(p + 2 * k * PG, PG, PROT_READ))
		k++;
	CHECK(k > 30000 && k < n);
	CHECK(errno == ENOMEM);
	/* One more mapping may fit where two more did not. */
	if (!munmap(p + (2 * k + 2) * PG, PG))
		ERR(munmap(p + (2 * k + 4) * PG, PG), ENOMEM);
	else
		CHECK(errno == ENOMEM);
	CHECK(p[0] == 'a');
	p[PG] = 'b';
	OK(munmap(p, 2 * n * PG));
	p = map(PG, PROT_READ | PROT_WRITE);
	CHECK(!p[0]);
}

static void zero(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		EQ(p[i], 0);
}

/* an address where memory was given up, n pages, that was all 0xaa */
static char *given(int n)
{
	char *at = mmap(0, n * PG + 64 * PG, PROT_NONE, ANON, -1, 0);
	CHECK(at != MAP_FAILED);
	OK(munmap(at, n * PG + 64 * PG));
	at += 32 * PG;
	for (int i = 0; i < 8; i++) {
		CHECK(mmap(at, n * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == at);
		for (int k = 0; k < n * PG; k++)
			EQ(at[k], 0);
		memset(at, 0xaa, n * PG);
		OK(munmap(at, n * PG));
	}
	return at;
}

CASE(memory_that_was_given_up_comes_back_empty)
{
	for (int i = 0; i < 200; i++) {
		char *a = given(16), *b;
		switch (i % 11) {
		case 0:
			b = mmap(a + 4 * PG, 4 * PG, PROT_READ, ANON | MAP_FIXED, -1, 0);
			CHECK(b == a + 4 * PG);
			EQ(faults(b, 1), SIGSEGV);
			EQ(faults(a + 3 * PG, 0), SIGSEGV);
			EQ(faults(a + 8 * PG, 0), SIGSEGV);
			zero(b, 4 * PG);
			OK(mprotect(b, 4 * PG, PROT_READ | PROT_WRITE));
			zero(b, 4 * PG);
			b[0] = 1;
			b = mmap(a, 16 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0);
			zero(b, 16 * PG);
			break;
		case 1:
			CHECK(mmap(a, 16 * PG, PROT_NONE, ANON | MAP_FIXED, -1, 0) == a);
			EQ(faults(a, 0), SIGSEGV);
			OK(mprotect(a + PG, PG, PROT_READ | PROT_WRITE));
			zero(a + PG, PG);
			OK(mprotect(a, 16 * PG, PROT_READ));
			zero(a, 16 * PG);
			break;
		case 2:
			b = mmap(0, 8 * PG, PROT_READ | PROT_WRITE, ANON, -1, 0);
			memset(b, 7, 8 * PG);
			CHECK(mremap(b, 8 * PG, 12 * PG, MREMAP_MAYMOVE | MREMAP_FIXED, a + 2 * PG) == a + 2 * PG);
			for (int k = 0; k < 8 * PG; k++) EQ(a[2 * PG + k], 7);
			zero(a + 10 * PG, 4 * PG);
			EQ(faults(a, 0), SIGSEGV);
			EQ(faults(a + 14 * PG, 1), SIGSEGV);
			break;
		case 3: /* grow in place into it */
			CHECK(mmap(a - 2 * PG, 2 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == a - 2 * PG);
			memset(a - 2 * PG, 7, 2 * PG);
			CHECK(mremap(a - 2 * PG, 2 * PG, 10 * PG, 0) == a - 2 * PG);
			zero(a, 8 * PG);
			EQ(faults(a + 8 * PG, 1), SIGSEGV);
			break;
		case 4: /* a fault below, in the same mapping */
			CHECK(mmap(a - 8 * PG, 32 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == a - 8 * PG);
			a[-8 * (long)PG] = 1;
			zero(a, 24 * PG);
			break;
		case 5: { /* a file, with and without a private copy */
			int f = memfd_create("x", 0);
			OK(ftruncate(f, 16 * PG));
			for (int k = 0; k < 16; k++) EQ(pwrite(f, "f", 1, k * PG), 1);
			CHECK(mmap(a + PG, 14 * PG, PROT_READ | PROT_WRITE, i & 1 ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_FIXED, f, PG) == a + PG);
			a[9 * PG + 1] = 'g';
			for (int k = 1; k < 15; k++) { EQ(a[k * PG], 'f'); EQ(a[k * PG + 1], k == 9 ? 'g' : 0); zero(a + k * PG + 2, PG - 2); }
			EQ(faults(a, 0), SIGSEGV);
			EQ(faults(a + 15 * PG, 0), SIGSEGV);
			close(f);
			break;
		}
		case 6: { /* fork */
			pid_t c = CHILD({
				EQ(faults(a, 0), SIGSEGV);
				EQ(faults(a + 3 * PG, 1), SIGSEGV);
				CHECK(mmap(a, 16 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == a);
				zero(a, 16 * PG);
				memset(a, 5, 16 * PG);
			});
			CHECK(mmap(a, 16 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == a);
			zero(a, 16 * PG);
			EQ(REAP(c), 0);
			zero(a, 16 * PG);
			break;
		}
		case 7: { /* vfork */
			pid_t c = vfork();
			if (!c) {
				mmap(a, 8 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0);
				zero(a, 8 * PG);
				a[5] = 5;
				_exit(0);
			}
			EQ(REAP(c), 0);
			EQ(a[5], 5);
			EQ(faults(a + 8 * PG, 0), SIGSEGV);
			break;
		}
		case 8:
			CHECK(mmap(a, 16 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED | MAP_POPULATE, -1, 0) == a);
			zero(a, 16 * PG);
			OK(madvise(a, 16 * PG, MADV_DONTNEED));
			zero(a, 16 * PG);
			break;
		case 9: { /* the kernel writes there first */
			CHECK(mmap(a, 16 * PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == a);
			int p[2];
			OK(pipe(p));
			EQ(write(p[1], "abc", 3), 3);
			EQ(read(p[0], a + 5 * PG + 10, 3), 3);
			zero(a, 5 * PG + 10);
			zero(a + 5 * PG + 13, 11 * PG - 13);
			close(p[0]); close(p[1]);
			break;
		}
		case 10: /* a mapping that grows down */
			CHECK(mmap(a + 16 * PG, PG, PROT_READ | PROT_WRITE, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0) == a + 16 * PG);
			a[16 * PG] = 1;
			if (!faults(a + 15 * PG, 1)) { a[15 * PG] = 0; zero(a + 15 * PG, PG); }
			break;
		}
		munmap(a - 32 * PG, 80 * PG);
	}
}
