// Fills 256 MiB in the way that the argument names, and frees it on SIGUSR1.
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (256ul << 20)

static char *fill(int flags)
{
	char *p = mmap(0, SIZE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		exit(1);
	memset(p, 1, SIZE);
	return p;
}

int main(int argc, char **argv)
{
	sigset_t set;
	char *how = argv[argc - 1], *p;
	static char buf[1 << 20];
	pid_t child;
	int sig, fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, 0);
	if (!strcmp(how, "munmap")) {
		p = fill(MAP_PRIVATE);
		sigwait(&set, &sig);
		munmap(p, SIZE);
	} else if (!strcmp(how, "shared")) {
		p = fill(MAP_SHARED);
		sigwait(&set, &sig);
		munmap(p, SIZE);
	} else if (!strcmp(how, "madvise")) {
		p = fill(MAP_PRIVATE);
		sigwait(&set, &sig);
		madvise(p, SIZE, MADV_DONTNEED);
	} else if (!strcmp(how, "pages")) { // every second page of each 64 KiB, then the rest
		p = fill(MAP_PRIVATE);
		sigwait(&set, &sig);
		for (size_t i = 0; i < SIZE; i += 65536)
			munmap(p + i, 32768);
		for (size_t i = 32768; i < SIZE; i += 65536)
			munmap(p + i, 32768);
	} else if (!strcmp(how, "exit")) {
		if (!(child = fork())) {
			fill(MAP_PRIVATE);
			sigwait(&set, &sig);
			_exit(0);
		}
		sigwait(&set, &sig);
		kill(child, SIGUSR1);
		waitpid(child, 0, 0);
	} else if (!strcmp(how, "tmpfs")) {
		fd = open("/dev/file", O_CREAT | O_WRONLY, 0600);
		for (size_t i = 0; i < SIZE; i += sizeof buf)
			if (write(fd, buf, sizeof buf) != sizeof buf)
				return 1;
		sigwait(&set, &sig);
		unlink("/dev/file");
		close(fd);
	}
	for (;;)
		pause();
}
