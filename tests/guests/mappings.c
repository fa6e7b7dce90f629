/*
 * Files in memory.
 *
 * rows: mmap/FILE msync munmap
 */
#include "guest.h"

/* A mapping that is far longer than its file, as databases have: what is behind the end cannot be read. */
#define LONGER (16 << 20)
static char *beyond;

static void setup(void)
{
	int fd = DO(open("short", O_RDWR | O_CREAT | O_TRUNC, 0644));
	CHECK(write(fd, "a short file", 12) == 12);
	beyond = mmap(NULL, LONGER, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(beyond != MAP_FAILED);
	close(fd);
}

static void round_of(long n, const char *word)
{
	(void)word;
	CHECK(memcmp(beyond, "a short file", 13) == 0);
	mix(beyond, 4096);
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
	char *longer = mmap(NULL, LONGER, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(longer != MAP_FAILED && longer[0] == 'm');
	mix(longer, 4096);
	SYS(munmap, longer, LONGER);
	close(fd);
	DO(unlink(name));
}
