/*
 * What a program reads of itself in /proc: where its memory is, in both versions its own, and as often as it likes; the rest,
 * such as its pid, is told to both alike.
 *
 * rows: (none of its own: open, read, pread64, lseek and close are others')
 */
#include "guest.h"

static char place;

static void setup(void)
{
}

/* Reads a file to its end, a little at a time, and says how much there was. */
static size_t read_all(int fd, char *text, size_t room, size_t step)
{
	size_t len = 0;
	for (;;) {
		long got = DO(read(fd, text + len, room - len < step ? room - len : step));
		if (got == 0)
			break;
		len += got;
	}
	CHECK(len < room);
	text[len] = 0;
	return len;
}

/* Looks an address up among the mappings; returns the line that holds it. */
static const char *mapping(char *maps, const void *address)
{
	static char line[400];
	for (char *at = maps; *at;) {
		unsigned long start, end;
		char *stop = strchr(at, '\n');
		CHECK(stop && sscanf(at, "%lx-%lx", &start, &end) == 2);
		if ((unsigned long)address >= start && (unsigned long)address < end) {
			snprintf(line, sizeof line, "%.*s", (int)(stop - at), at);
			return line;
		}
		at = stop + 1;
	}
	return NULL;
}

static void round_of(long n, const char *word)
{
	(void)word;
	static char maps[1 << 18], again[1 << 18], stat[2000];
	int local = 0;
	char name[40];
	snprintf(name, sizeof name, n % 2 ? "/proc/self/maps" : "/proc/%d/maps", (int)SYS(getpid));
	int fd = DO(open(name, O_RDONLY));
	size_t len = read_all(fd, maps, sizeof maps, 100 + n);
	CHECK(mapping(maps, &place) && mapping(maps, (void *)round_of) && mapping(maps, maps));
	CHECK(strstr(mapping(maps, &local), "[stack]"));
	DO(lseek(fd, 0, SEEK_SET));
	CHECK(read_all(fd, again, sizeof again, sizeof again) == len && memcmp(maps, again, len) == 0);
	CHECK(DO(pread(fd, again, 16, 0)) == 16 && memcmp(maps, again, 16) == 0);
	DO(close(fd));

	fd = DO(open("/proc/self/stat", O_RDONLY));
	read_all(fd, stat, sizeof stat, sizeof stat);
	DO(close(fd));
	CHECK(atoi(stat) == SYS(getpid));
	mix_value(atoi(stat));
	/* The field `startstack` is the 28th; the name in the second one has no space here. */
	char *field = stat;
	for (int i = 1; i < 28; i++)
		field = strchr(field, ' ') + 1;
	CHECK(strstr(mapping(maps, (void *)strtoul(field, NULL, 10)), "[stack]"));

	unsigned long pair[2], random = 0;
	fd = DO(open("/proc/self/auxv", O_RDONLY));
	while (DO(read(fd, pair, sizeof pair)) == sizeof pair)
		random = pair[0] == 25 ? pair[1] : random;
	DO(close(fd));
	CHECK(mapping(maps, (void *)random));
	mix((void *)random, 16);
}
