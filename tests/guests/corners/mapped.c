/* Files in memory that change, and that are large. */
#include "corner.h"

corner(map_read_only_sees_writes)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 8192));
	const volatile char *seen = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(seen != MAP_FAILED);
	say("%.5s", (const char *)seen);
	CHECK(pwrite(fd, "again", 5, 0) == 5);
	say("%.5s", (const char *)seen);
	CHECK(pwrite(fd, "next page", 9, 4096) == 9);
	say("%.9s", (const char *)seen + 4096);
	CHECK(lseek(fd, 100, SEEK_SET) == 100);
	CHECK(write(fd, "here", 4) == 4);
	say("%.4s", (const char *)seen + 100);
	struct iovec parts[2] = { { "ab", 2 }, { "cd", 2 } };
	CHECK(pwritev(fd, parts, 2, 200) == 4);
	say("%.4s", (const char *)seen + 200);
}

corner(map_private_untouched_sees_writes)
{
	int fd = file_of("file", "first");
	const volatile char *seen = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	say("%.5s", (const char *)seen);
	CHECK(pwrite(fd, "again", 5, 0) == 5);
	say("%.5s", (const char *)seen);
}

corner(map_given_up_comes_back)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 8192));
	char *seen = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	memcpy(seen, "other", 5);
	DO(madvise(seen, 8192, MADV_DONTNEED));
	say("%.5s", seen);
}

corner(map_grows)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 16384));
	CHECK(pwrite(fd, "second", 6, 8192) == 6);
	char *seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(seen != MAP_FAILED);
	seen = mremap(seen, 4096, 16384, MREMAP_MAYMOVE);
	CHECK(seen != MAP_FAILED);
	say("%.5s %.6s", seen, seen + 8192);
}

corner(map_is_moved)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 16384));
	CHECK(pwrite(fd, "second", 6, 8192) == 6);
	char *seen = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	memcpy(seen, "other", 5);
	char *place = mmap(NULL, 16384, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(place != MAP_FAILED);
	CHECK(mremap(seen, 16384, 12288, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
	say("%.5s %.6s", place, place + 8192);
	DO(madvise(place, 12288, MADV_DONTNEED));
	say("%.5s %.6s", place, place + 8192);
}

corner(map_never_written_is_given_up)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 8192));
	int protections[] = { PROT_READ, PROT_READ | PROT_WRITE }, kinds[] = { MAP_PRIVATE, MAP_SHARED };
	for (int i = 0; i < 2; i++) {
		char *seen = mmap(NULL, 8192, protections[0], kinds[i], fd, 0);
		CHECK(seen != MAP_FAILED);
		say("%.5s", seen);
		DO(madvise(seen, 8192, MADV_DONTNEED));
		say("%.5s", seen);
	}
	char *seen = mmap(NULL, 8192, protections[1], MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	memcpy(seen + 4096, "other", 5);
	DO(madvise(seen, 4096, MADV_DONTNEED));
	say("%.5s %.5s", seen, seen + 4096);
}

corner(map_made_anonymous_is_given_up)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 8192));
	char *seen = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	CHECK(mmap(seen, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == seen);
	memcpy(seen, "other", 5);
	memcpy(seen + 4096, "again", 5);
	DO(madvise(seen, 8192, MADV_DONTNEED));
	say("%d %d", seen[0], seen[4096]);
}

corner(map_private_touched_keeps_what_is_its_own)
{
	int fd = file_of("file", "first");
	DO(ftruncate(fd, 12288));
	char *seen = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	memcpy(seen + 4096, "other", 5);
	char text[12288];
	memset(text, 'x', sizeof text);
	CHECK(pwrite(fd, text, sizeof text, 0) == sizeof text);
	say("%.5s %.5s %.5s", seen, seen + 4096, seen + 8192);
}

corner(map_tail_grows)
{
	int fd = file_of("file", "first");
	const volatile char *seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(seen != MAP_FAILED);
	CHECK(pwrite(fd, "tail", 4, 5) == 4);
	say("%.9s", (const char *)seen);
}

corner(map_code_of_a_huge_file)
{
	int fd = DO(memfd_create("sparse", MFD_CLOEXEC));
	/* The head of a program: what is not one has no code that is looked at. */
	int from = DO(open("/proc/self/exe", O_RDONLY));
	char head[4096];
	CHECK(read(from, head, sizeof head) == sizeof head);
	CHECK(write(fd, head, sizeof head) == sizeof head);
	DO(ftruncate(fd, 1L << 46));
	void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 4096);
	CHECK(code != MAP_FAILED);
	say("%d", *(char *)code);
}

corner(map_of_many_holes)
{
	int fd = DO(memfd_create("sparse", MFD_CLOEXEC));
	DO(ftruncate(fd, 6L << 30));
	for (long at = 0; at < 6; at++)
		CHECK(pwrite(fd, "island", 6, (at << 30) + 5000) == 6);
	const char *seen = mmap(NULL, 6L << 30, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(seen != MAP_FAILED);
	for (long at = 0; at < 6; at++)
		say("%.6s %d", seen + (at << 30) + 5000, seen[(at << 30) + 12345]);
}
