/*
 * Files in memory.
 *
 * rows: mmap/FILE msync munmap
 */
#include "guest.h"

static void setup(void)
{
}

static void round_of(long n, const char *word)
{
	(void)word;
	char *name = named("mapped-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	CHECK(write(fd, "mapped contents", 15) == 15);
	char *file = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED && memcmp(file, "mapped contents", 15) == 0);
	memcpy(file, "M", 1);
	SYS(msync, file, 4096, MS_SYNC);
	char *shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(shared != MAP_FAILED && shared[0] == 'm');
	mix(file, 15);
	mix(shared, 15);
	SYS(munmap, file, 4096);
	SYS(munmap, shared, 4096);
	close(fd);
	DO(unlink(name));
}
