// open(2), read(2), write(2), stat(2), rename(2), link(2) and the rest of the file system calls.
#include "husk.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <linux/openat2.h>
#include <sys/sysmacros.h>

static int make(const char *n) { return OK(open(n, O_CREAT | O_RDWR | O_TRUNC, 0644)); }

CASE(open_errors)
{
	tmpdir();
	ERR(open("no", O_RDONLY), ENOENT);
	ERR(open("", O_RDONLY), ENOENT);
	ERR(open("no/", O_CREAT | O_RDWR, 0600), EISDIR);
	make("f");
	ERR(open("f/x", O_RDONLY), ENOTDIR);
	ERR(open("f/", O_RDONLY), ENOTDIR);
	ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	ERR(open("f", O_CREAT | O_EXCL, 0600), EEXIST);
	ERR(open(".", O_RDWR), EISDIR);
	ERR(open(".", O_RDONLY | O_CREAT, 0600), EISDIR);
	char n[5000];
	memset(n, 'a', sizeof n);
	n[300] = 0;
	ERR(open(n, O_RDONLY), ENAMETOOLONG);
	n[300] = '/';
	n[4999] = 0;
	ERR(open(n, O_RDONLY), ENAMETOOLONG);
	ERR(openat(99, "x", O_RDONLY), EBADF);
	int fd = OK(open("f", O_RDONLY));
	ERR(openat(fd, "x", O_RDONLY), ENOTDIR);
}

CASE(read_write_seek)
{
	tmpdir();
	int fd = make("f");
	EQ(write(fd, "0123456789", 10), 10);
	EQ(lseek(fd, 0, SEEK_CUR), 10);
	EQ(lseek(fd, 3, SEEK_SET), 3);
	char b[20] = "";
	EQ(read(fd, b, 4), 4);
	CHECK(!strcmp(b, "3456"));
	EQ(lseek(fd, -2, SEEK_END), 8);
	EQ(read(fd, b, 20), 2);
	EQ(read(fd, b, 20), 0);
	ERR(lseek(fd, -1, SEEK_SET), EINVAL);
	ERR(lseek(fd, 0, 99), EINVAL);
	EQ(pwrite(fd, "X", 1, 100), 1);
	struct stat s;
	OK(fstat(fd, &s));
	EQ(s.st_size, 101);
	EQ(pread(fd, b, 1, 50), 1);
	EQ(b[0], 0);
	ERR(pread(fd, b, 1, -1), EINVAL);
	int ro = OK(open("f", O_RDONLY));
	ERR(write(ro, "x", 1), EBADF);
	int wo = OK(open("f", O_WRONLY));
	ERR(read(wo, b, 1), EBADF);
	ERR(read(-1, b, 1), EBADF);
}

CASE(vectors)
{
	tmpdir();
	int fd = make("f");
	struct iovec v[3] = {{"ab", 2}, {"", 0}, {"cde", 3}};
	EQ(writev(fd, v, 3), 5);
	char x[3], y[4];
	struct iovec r[2] = {{x, 3}, {y, 4}};
	EQ(preadv(fd, r, 2, 0), 5);
	CHECK(!memcmp(x, "abc", 3) && !memcmp(y, "de", 2));
	ERR(writev(fd, v, -1), EINVAL);
	ERR(writev(fd, v, 2000), EINVAL);
	v[0].iov_len = -1;
	ERR(writev(fd, v, 3), EINVAL);
}

CASE(append)
{
	tmpdir();
	int fd = OK(open("f", O_CREAT | O_RDWR | O_APPEND, 0600)), g = OK(open("f", O_RDWR));
	EQ(write(fd, "aa", 2), 2);
	EQ(write(g, "B", 1), 1);
	EQ(write(fd, "cc", 2), 2);
	char b[10] = "";
	EQ(pread(fd, b, 9, 0), 4);
	CHECK(!strcmp(b, "Bacc"));
}

CASE(truncate)
{
	tmpdir();
	int fd = make("f");
	EQ(write(fd, "0123456789", 10), 10);
	OK(ftruncate(fd, 4));
	OK(truncate("f", 8));
	char b[10];
	EQ(pread(fd, b, 10, 0), 8);
	CHECK(!memcmp(b, "0123\0\0\0\0", 8));
	ERR(truncate("f", -1), EINVAL);
	ERR(truncate(".", 1), EISDIR);
	ERR(ftruncate(OK(open("f", O_RDONLY)), 1), EINVAL);
	OK(open("f", O_WRONLY | O_TRUNC));
	EQ(lseek(fd, 0, SEEK_END), 0);
}

CASE(stat_fields)
{
	tmpdir();
	umask(022);
	int fd = OK(open("f", O_CREAT | O_RDWR, 0666));
	struct stat s, d;
	OK(fstat(fd, &s));
	EQ(s.st_mode, S_IFREG | 0644);
	EQ(s.st_nlink, 1);
	EQ(s.st_uid, geteuid());
	EQ(s.st_size, 0);
	OK(mkdir("d", 0777));
	OK(stat("d", &d));
	EQ(d.st_mode, S_IFDIR | 0755);
	EQ(d.st_nlink, 2);
	CHECK(d.st_ino != s.st_ino && d.st_dev == s.st_dev);
	OK(symlink("f", "l"));
	OK(lstat("l", &d));
	EQ(d.st_mode, S_IFLNK | 0777);
	EQ(d.st_size, 1);
	OK(stat("l", &d));
	EQ(d.st_ino, s.st_ino);
	struct statx x;
	OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
	EQ(x.stx_ino, s.st_ino);
	EQ(x.stx_mode, s.st_mode);
	OK(fstatat(fd, "", &d, AT_EMPTY_PATH));
	EQ(d.st_ino, s.st_ino);
	ERR(fstatat(fd, "", &d, 0), ENOENT);
	ERR(fstatat(AT_FDCWD, "f", &d, 0x8000000), EINVAL);
}

CASE(hard_links)
{
	tmpdir();
	make("a");
	OK(link("a", "b"));
	struct stat s;
	OK(stat("b", &s));
	EQ(s.st_nlink, 2);
	ERR(link("a", "b"), EEXIST);
	OK(unlink("a"));
	OK(stat("b", &s));
	EQ(s.st_nlink, 1);
	OK(mkdir("d", 0700));
	ERR(link("d", "e"), EPERM);
	ERR(link("no", "e"), ENOENT);
}

CASE(unlinked_file_lives)
{
	tmpdir();
	int fd = make("f");
	OK(unlink("f"));
	EQ(write(fd, "x", 1), 1);
	struct stat s;
	OK(fstat(fd, &s));
	EQ(s.st_nlink, 0);
	EQ(s.st_size, 1);
	ERR(unlink("f"), ENOENT);
	OK(mkdir("d", 0700));
	ERR(unlink("d"), EISDIR);
}

CASE(directories)
{
	tmpdir();
	OK(mkdir("d", 0700));
	ERR(mkdir("d", 0700), EEXIST);
	ERR(mkdir("x/y", 0700), ENOENT);
	make("d/f");
	ERR(rmdir("d"), ENOTEMPTY);
	ERR(rmdir("d/f"), ENOTDIR);
	ERR(rmdir("d/."), EINVAL);
	OK(unlink("d/f"));
	OK(chdir("d"));
	OK(rmdir("../d"));
	ERR(open("f", O_CREAT | O_RDWR, 0600), ENOENT);
	char b[100];
	ERR(syscall(SYS_getcwd, b, 100), ENOENT);
	OK(chdir("/"));
	OK(mkdir("/tmp/husk.slash/", 0700));
	OK(rmdir("/tmp/husk.slash/"));
}

CASE(readdir_lists_everything)
{
	tmpdir();
	char n[20], seen[500] = "";
	for (int i = 0; i < 500; i++) {
		sprintf(n, "f%d", i);
		close(make(n));
	}
	DIR *d = opendir(".");
	struct dirent *e;
	int count = 0, dots = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.') {
			dots++;
			EQ(e->d_type, DT_DIR);
			continue;
		}
		int i = atoi(e->d_name + 1);
		CHECK(!seen[i]);
		seen[i] = 1;
		EQ(e->d_type, DT_REG);
		count++;
	}
	EQ(count, 500);
	EQ(dots, 2);
	rewinddir(d);
	CHECK(readdir(d));
	char small[8];
	int fd = OK(open(".", O_RDONLY));
	ERR(syscall(SYS_getdents64, fd, small, 8), EINVAL);
	ERR(syscall(SYS_getdents64, make("f0"), small, 8), ENOTDIR);
}

CASE(readdir_while_deleting)
{
	tmpdir();
	char n[20];
	for (int i = 0; i < 300; i++) {
		sprintf(n, "f%d", i);
		close(make(n));
	}
	DIR *d = opendir(".");
	struct dirent *e;
	int count = 0;
	while ((e = readdir(d)))
		if (e->d_name[0] == 'f') {
			OK(unlink(e->d_name));
			count++;
		}
	EQ(count, 300);
}

CASE(rename_semantics)
{
	tmpdir();
	OK(put_file("a", "A"));
	OK(put_file("b", "B"));
	OK(rename("a", "b"));
	ERR(open("a", O_RDONLY), ENOENT);
	char c;
	EQ(read(open("b", O_RDONLY), &c, 1), 1);
	EQ(c, 'A');
	OK(mkdir("d", 0700));
	OK(mkdir("d/e", 0700));
	ERR(rename("d", "d/e/f"), EINVAL);
	ERR(rename("b", "d"), EISDIR);
	ERR(rename("d", "b"), ENOTDIR);
	OK(mkdir("g", 0700));
	OK(rename("d", "g"));
	OK(access("g/e", F_OK));
	OK(mkdir("h", 0700));
	ERR(rename("h", "g"), ENOTEMPTY);
	ERR(rename("no", "x"), ENOENT);
	OK(syscall(SYS_renameat2, AT_FDCWD, "b", AT_FDCWD, "g", 2)); // RENAME_EXCHANGE
	struct stat s;
	OK(stat("b", &s));
	CHECK(S_ISDIR(s.st_mode));
	ERR(syscall(SYS_renameat2, AT_FDCWD, "h", AT_FDCWD, "g", 1), EEXIST); // RENAME_NOREPLACE
	OK(link("g", "g2"));
	OK(rename("g", "g2"));
	OK(access("g", F_OK));
}

CASE(symlinks)
{
	tmpdir();
	OK(put_file("f", "x"));
	OK(symlink("f", "l"));
	char b[10] = "";
	EQ(readlink("l", b, 10), 1);
	CHECK(b[0] == 'f');
	ERR(readlink("f", b, 10), EINVAL);
	ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	OK(symlink("loop", "loop"));
	ERR(open("loop", O_RDONLY), ELOOP);
	OK(symlink("nowhere", "dangling"));
	ERR(open("dangling", O_RDONLY), ENOENT);
	int fd = OK(open("dangling", O_CREAT | O_RDWR, 0600));
	CHECK(fd >= 0);
	OK(access("nowhere", F_OK));
	ERR(open("dangling", O_CREAT | O_EXCL, 0600), EEXIST);
	ERR(symlink("x", "l"), EEXIST);
	ERR(symlink("", "e"), ENOENT);
	OK(mkdir("d", 0700));
	OK(symlink("../f", "d/up"));
	OK(access("d/up", R_OK));
	OK(symlink("d/", "ds"));
	OK(access("ds/up", F_OK));
	int p = OK(open("l", O_PATH | O_NOFOLLOW));
	struct stat s;
	OK(fstat(p, &s));
	CHECK(S_ISLNK(s.st_mode));
	EQ(readlinkat(p, "", b, 10), 1);
}

CASE(openat2_resolve)
{
	tmpdir();
	OK(mkdir("d", 0700));
	OK(put_file("d/f", "x"));
	OK(symlink("/etc", "d/abs"));
	OK(symlink("f", "d/rel"));
	int d = OK(open("d", O_PATH));
	struct open_how h = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
	OK(syscall(SYS_openat2, d, "f", &h, sizeof h));
	OK(syscall(SYS_openat2, d, "rel", &h, sizeof h));
	ERR(syscall(SYS_openat2, d, "../d/f", &h, sizeof h), EXDEV);
	ERR(syscall(SYS_openat2, d, "abs/passwd", &h, sizeof h), EXDEV);
	h.resolve = RESOLVE_NO_SYMLINKS;
	ERR(syscall(SYS_openat2, d, "rel", &h, sizeof h), ELOOP);
	h.resolve = RESOLVE_IN_ROOT;
	OK(syscall(SYS_openat2, d, "/../f", &h, sizeof h));
	h.resolve = 0x1000;
	ERR(syscall(SYS_openat2, d, "f", &h, sizeof h), EINVAL);
	h.resolve = 0;
	h.flags = 1ULL << 40;
	ERR(syscall(SYS_openat2, d, "f", &h, sizeof h), EINVAL);
}

CASE(permissions_for_others)
{
	tmpdir();
	OK(chmod(".", 0755));
	OK(put_file("secret", "x"));
	OK(chmod("secret", 0600));
	OK(put_file("public", "x"));
	OK(mkdir("closed", 0700));
	OK(put_file("closed/f", "x"));
	if (geteuid())
		SKIP("needs root");
	EQ(REAP(CHILD({
		   OK(setgid(12345));
		   OK(setuid(12345));
		   ERR(open("secret", O_RDONLY), EACCES);
		   OK(open("public", O_RDONLY));
		   ERR(open("public", O_WRONLY), EACCES);
		   ERR(open("closed/f", O_RDONLY), EACCES);
		   ERR(open("new", O_CREAT | O_RDWR, 0600), EACCES);
		   ERR(unlink("public"), EACCES);
		   ERR(chmod("public", 0777), EPERM);
		   ERR(chown("public", 12345, -1), EPERM);
		   ERR(access("secret", R_OK), EACCES);
		   OK(access("public", R_OK));
	   })),
	   0);
}

CASE(sticky_directory)
{
	if (geteuid())
		SKIP("needs root");
	tmpdir();
	OK(chmod(".", 01777));
	OK(put_file("f", "x"));
	EQ(REAP(CHILD({
		   OK(setuid(12345));
		   ERR(unlink("f"), EPERM);
		   ERR(rename("f", "g"), EPERM);
		   OK(put_file("mine", "x"));
		   OK(unlink("mine"));
	   })),
	   0);
}

CASE(setgid_directory)
{
	if (geteuid())
		SKIP("needs root");
	tmpdir();
	OK(mkdir("d", 0755));
	OK(chown("d", 0, 777));
	OK(chmod("d", 02755));
	make("d/f");
	struct stat s;
	OK(stat("d/f", &s));
	EQ(s.st_gid, 777);
	OK(mkdir("d/e", 0755));
	OK(stat("d/e", &s));
	CHECK(s.st_gid == 777 && s.st_mode & S_ISGID);
}

CASE(chown_clears_setuid)
{
	if (geteuid())
		SKIP("needs root");
	tmpdir();
	make("f");
	OK(chmod("f", 04755));
	OK(chown("f", 1, 2));
	struct stat s;
	OK(stat("f", &s));
	EQ(s.st_mode, S_IFREG | 0755);
	CHECK(s.st_uid == 1 && s.st_gid == 2);
	OK(chmod("f", 07777));
	OK(stat("f", &s));
	EQ(s.st_mode & 07777, 07777);
}

CASE(times)
{
	tmpdir();
	int fd = make("f");
	struct timespec t[2] = {{1000, 123456789}, {2000, 987654321}};
	OK(futimens(fd, t));
	struct stat s;
	OK(fstat(fd, &s));
	CHECK(s.st_atim.tv_sec == 1000 && s.st_mtim.tv_sec == 2000);
	EQ(s.st_mtim.tv_nsec, 987654321);
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_nsec = UTIME_NOW;
	OK(utimensat(AT_FDCWD, "f", t, 0));
	OK(fstat(fd, &s));
	CHECK(s.st_atim.tv_sec == 1000 && s.st_mtim.tv_sec > 1000000000);
	t[0].tv_nsec = 2000000000;
	ERR(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
	struct timespec before = s.st_mtim;
	msleep(20);
	EQ(write(fd, "x", 1), 1);
	OK(fstat(fd, &s));
	CHECK(s.st_mtim.tv_sec > before.tv_sec || s.st_mtim.tv_nsec > before.tv_nsec);
}

CASE(dup_shares_offset)
{
	tmpdir();
	int fd = make("f"), g = OK(dup(fd));
	EQ(write(fd, "abc", 3), 3);
	EQ(lseek(g, 0, SEEK_CUR), 3);
	EQ(dup2(fd, 50), 50);
	EQ(dup2(fd, fd), fd);
	ERR(dup3(fd, fd, 0), EINVAL);
	EQ(dup3(fd, 51, O_CLOEXEC), 51);
	EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(fd, F_DUPFD, 60), 60);
	EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 61);
	ERR(dup2(99, 5), EBADF);
	ERR(fcntl(fd, F_DUPFD, 1 << 30), EINVAL);
	OK(syscall(SYS_close_range, 50, 61, 0));
	ERR(close(60), EBADF);
}

CASE(lowest_descriptor)
{
	int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY));
	EQ(b, a + 1);
	close(a);
	EQ(open("/dev/null", O_RDONLY), a);
}

CASE(fcntl_flags)
{
	tmpdir();
	int fd = make("f");
	EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR);
	OK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
	EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR | O_APPEND | O_NONBLOCK);
	ERR(fcntl(fd, 9999, 0), EINVAL);
	OK(fcntl(fd, F_SETOWN, getpid()));
	EQ(fcntl(fd, F_GETOWN), getpid());
}

CASE(posix_locks)
{
	tmpdir();
	int fd = make("f");
	struct flock l = {.l_type = F_WRLCK, .l_start = 10, .l_len = 10};
	OK(fcntl(fd, F_SETLK, &l));
	EQ(REAP(CHILD({
		   struct flock k = {.l_type = F_WRLCK, .l_start = 15, .l_len = 1};
		   ERR(fcntl(fd, F_SETLK, &k), EAGAIN);
		   OK(fcntl(fd, F_GETLK, &k));
		   EQ(k.l_pid, getppid());
		   EQ(k.l_start, 10);
		   k = (struct flock){.l_type = F_WRLCK, .l_start = 20, .l_len = 1};
		   OK(fcntl(fd, F_SETLK, &k));
	   })),
	   0);
	pid_t p = CHILD({
		struct flock k = {.l_type = F_RDLCK, .l_start = 0, .l_len = 0};
		OK(fcntl(fd, F_SETLKW, &k));
	});
	msleep(50);
	EQ(waitpid(p, 0, WNOHANG), 0);
	l.l_type = F_UNLCK;
	OK(fcntl(fd, F_SETLK, &l));
	EQ(REAP(p), 0);
}

CASE(ofd_and_flock)
{
	tmpdir();
	int a = make("f"), b = OK(open("f", O_RDWR));
	struct flock l = {.l_type = F_WRLCK};
	OK(fcntl(a, F_OFD_SETLK, &l));
	ERR(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
	close(a);
	OK(fcntl(b, F_OFD_SETLK, &l));
	int c = make("g"), d = OK(open("g", O_RDWR));
	OK(flock(c, LOCK_EX));
	ERR(flock(d, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	ERR(flock(d, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	OK(flock(c, LOCK_SH));
	OK(flock(d, LOCK_SH | LOCK_NB));
	ERR(flock(d, 77), EINVAL);
}

CASE(fallocate_and_holes)
{
	tmpdir();
	int fd = make("f");
	OK(fallocate(fd, 0, 0, 65536));
	struct stat s;
	OK(fstat(fd, &s));
	EQ(s.st_size, 65536);
	char b[4096];
	memset(b, 1, sizeof b);
	EQ(pwrite(fd, b, 4096, 8192), 4096);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096));
	EQ(pread(fd, b, 4096, 8192), 4096);
	EQ(b[100], 0);
	ERR(fallocate(fd, 0, 0, 0), EINVAL);
	ERR(fallocate(fd, 0, -1, 10), EINVAL);
	EQ(lseek(fd, 0, SEEK_HOLE) >= 0, 1);
	ERR(lseek(fd, 70000, SEEK_DATA), ENXIO);
}

CASE(xattrs)
{
	tmpdir();
	make("f");
	char b[100];
	if (setxattr("f", "user.a", "one", 3, 0) && errno == ENOTSUP)
		SKIP("no user xattrs");
	OK(setxattr("f", "user.bb", "two", 3, 0));
	EQ(getxattr("f", "user.a", b, 100), 3);
	CHECK(!memcmp(b, "one", 3));
	EQ(getxattr("f", "user.a", 0, 0), 3);
	ERR(getxattr("f", "user.a", b, 1), ERANGE);
	ERR(getxattr("f", "user.none", b, 100), ENODATA);
	ERR(setxattr("f", "user.a", "x", 1, XATTR_CREATE), EEXIST);
	ERR(setxattr("f", "user.q", "x", 1, XATTR_REPLACE), ENODATA);
	ERR(setxattr("f", "nonsense", "x", 1, 0), ENOTSUP);
	ssize_t n = OK(listxattr("f", b, 100));
	CHECK(n >= 15);
	OK(removexattr("f", "user.a"));
	ERR(removexattr("f", "user.a"), ENODATA);
}

CASE(sendfile_and_copy)
{
	tmpdir();
	int a = make("a"), b = make("b");
	EQ(write(a, "0123456789", 10), 10);
	off_t off = 2;
	EQ(sendfile(b, a, &off, 5), 5);
	EQ(off, 7);
	loff_t from = 0, to = 5;
	EQ(copy_file_range(a, &from, b, &to, 3, 0), 3);
	char c[20] = "";
	EQ(pread(b, c, 20, 0), 8);
	CHECK(!strcmp(c, "23456012"));
	int p[2];
	OK(pipe(p));
	lseek(a, 0, SEEK_SET);
	EQ(splice(a, 0, p[1], 0, 4, 0), 4);
	EQ(read(p[0], c, 20), 4);
	ERR(splice(a, 0, b, 0, 4, 0), EINVAL);
}

CASE(fifo_blocks_until_both_ends)
{
	tmpdir();
	OK(mkfifo("p", 0600));
	ERR(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
	pid_t c = CHILD({
		int w = OK(open("p", O_WRONLY));
		EQ(write(w, "hi", 2), 2);
	});
	int r = OK(open("p", O_RDONLY));
	char b[4];
	EQ(read(r, b, 4), 2);
	EQ(read(r, b, 4), 0);
	EQ(REAP(c), 0);
	struct stat s;
	OK(stat("p", &s));
	CHECK(S_ISFIFO(s.st_mode));
}

CASE(mknod_kinds)
{
	tmpdir();
	OK(mknod("r", S_IFREG | 0600, 0));
	ERR(mknod("r", S_IFREG | 0600, 0), EEXIST);
	ERR(mknod("d", S_IFDIR | 0600, 0), EPERM);
	ERR(mknod("x", 0170000, 0), EINVAL);
}

CASE(getcwd_chdir)
{
	char *d = tmpdir(), b[100];
	CHECK(!strcmp(getcwd(b, 100), d));
	OK(mkdir("x", 0700));
	int fd = OK(open("x", O_RDONLY));
	OK(fchdir(fd));
	CHECK(strstr(getcwd(b, 100), "/x"));
	OK(rename("../x", "../y"));
	CHECK(strstr(getcwd(b, 100), "/y"));
	ERR(syscall(SYS_getcwd, b, 3), ERANGE);
	ERR(chdir("/no/such"), ENOENT);
	ERR(chdir("/etc/passwd"), ENOTDIR);
}

CASE(chroot_confines)
{
	if (geteuid())
		SKIP("needs root");
	tmpdir();
	OK(mkdir("r", 0755));
	OK(put_file("r/inside", "x"));
	OK(chroot("r"));
	OK(chdir("/"));
	OK(access("/inside", F_OK));
	OK(access("/../../inside", F_OK));
	ERR(access("/etc", F_OK), ENOENT);
}

CASE(umask_applies)
{
	tmpdir();
	EQ(umask(027), 022);
	make("f");
	struct stat s;
	int fd = OK(open("g", O_CREAT | O_RDWR, 0777));
	OK(fstat(fd, &s));
	EQ(s.st_mode & 0777, 0750);
	EQ(umask(022), 027);
}

CASE(statfs_root)
{
	struct statfs f;
	OK(statfs("/", &f));
	CHECK(f.f_bsize > 0 && f.f_namelen >= 255);
	OK(statfs("/proc", &f));
	EQ(f.f_type, 0x9fa0);
	ERR(statfs("/no/such", &f), ENOENT);
}

CASE(rlimit_fsize)
{
	tmpdir();
	int fd = make("f");
	OK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){100, 100}));
	signal(SIGXFSZ, SIG_IGN);
	char b[200] = {0};
	EQ(write(fd, b, 200), 100);
	ERR(write(fd, b, 1), EFBIG);
}

CASE(rlimit_nofile)
{
	OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){10, 10}));
	int n = 0;
	while (open("/dev/null", O_RDONLY) >= 0)
		n++;
	EQ(errno, EMFILE);
	CHECK(n <= 10);
}

CASE(tmpfile)
{
	tmpdir();
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 && errno == EOPNOTSUPP)
		SKIP("no O_TMPFILE");
	EQ(write(fd, "x", 1), 1);
	char p[50];
	sprintf(p, "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	OK(access("named", F_OK));
}

CASE(dev_files)
{
	char b[64];
	int z = OK(open("/dev/zero", O_RDWR)), n = OK(open("/dev/null", O_RDWR)), u = OK(open("/dev/urandom", O_RDONLY)),
	    f = OK(open("/dev/full", O_RDWR));
	memset(b, 1, 64);
	EQ(read(z, b, 64), 64);
	EQ(b[63], 0);
	EQ(read(n, b, 64), 0);
	EQ(write(n, b, 64), 64);
	EQ(read(u, b, 64), 64);
	ERR(write(f, b, 1), ENOSPC);
	struct stat s;
	OK(fstat(n, &s));
	CHECK(S_ISCHR(s.st_mode) && major(s.st_rdev) == 1 && minor(s.st_rdev) == 3);
}

/* Who is killed in the middle of a transfer of gigabytes dies then, and not at its end. */
static void dies_early(void (*f)(int zero, char *m, size_t n))
{
	size_t n = 0x7ff00000;
	char *m = mmap(0, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(m != (void *)-1);
	pid_t c = CHILD({
		int fd = open("/dev/urandom", O_RDONLY);
		for (;;)
			f(fd, m, n);
	});
	msleep(100);
	OK(kill(c, SIGKILL));
	EQ(WTERMSIG(REAP(c)), SIGKILL); // within the time limit of a case
}

static void read_all(int fd, char *m, size_t n) { CHECK(read(fd, m, n) > 0); }
static void send_all(int fd, char *m, size_t n)
{
	int to = open("/tmp/husk.sent", O_RDWR | O_CREAT | O_TRUNC, 0600), from = open("/tmp/husk.from", O_RDWR | O_CREAT | O_TRUNC, 0600);
	unlink("/tmp/husk.sent");
	unlink("/tmp/husk.from");
	ftruncate(from, n);
	CHECK(sendfile(to, from, 0, n) > 0);
}
static void copy_memory(int fd, char *m, size_t n)
{
	struct iovec a = {m, n / 2}, b = {m + n / 2, n / 2};
	CHECK(process_vm_readv(getpid(), &a, 1, &b, 1, 0) > 0);
}

CASE(killed_in_a_long_read) { dies_early(read_all); }
CASE(killed_in_a_long_sendfile) { dies_early(send_all); }
CASE(killed_in_a_long_copy) { dies_early(copy_memory); }
