/*
 * The areas of memory over several rounds: every kind that setup() or a round makes is looked at in the rounds that follow, with
 * its contents, its protection and its flags.
 *
 * rows: brk mmap mmap/FILE munmap mprotect mremap madvise mlock clone/FORK wait4 rt_sigaction
 */
#include "guest.h"

#include <setjmp.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>

#define PAGE 4096
#define SLOTS 16
#define SMALL 3000
#define GROWTH (1 << 20)

static sigjmp_buf back;
static volatile sig_atomic_t catching;

static void on_fault(int number)
{
	if (!catching)
		_exit(90);
	siglongjmp(back, number);
}

/* Says whether a byte can be read, or written. */
static int faults(volatile char *byte, int writing)
{
	int fault = sigsetjmp(back, 1);
	if (fault == 0) {
		catching = 1;
		char is = *byte;
		if (writing)
			*byte = is;
	}
	catching = 0;
	return fault == SIGSEGV;
}

static void *area(size_t len, int protection)
{
	void *start = mmap(NULL, len, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(start != MAP_FAILED);
	return start;
}

/* Fills pages with what follows from a seed, a word in each 512 bytes. */
static void fill(char *start, size_t len, uint64_t seed)
{
	for (size_t at = 0; at < len; at += 512)
		*(uint64_t *)(start + at) = seed * 1000003 + at;
}

static int filled(const char *start, size_t len, uint64_t seed)
{
	for (size_t at = 0; at < len; at += 512)
		if (*(const uint64_t *)(start + at) != seed * 1000003 + at)
			return 0;
	return 1;
}

static int zeros(const char *start, size_t len)
{
	for (size_t at = 0; at < len; at += 64)
		if (start[at])
			return 0;
	return 1;
}

/* The break: grown, shrunk, and what is below it stays. */
static char *break_base;
static size_t break_len;

static void moving_break(long n)
{
	CHECK(sbrk(0) == break_base + break_len && filled(break_base, break_len, 7));
	size_t now = (size_t)(1 + n % 4) * 5 * PAGE;
	CHECK(brk(break_base + now) == 0);
	CHECK(now <= break_len || zeros(break_base + break_len, now - break_len));
	fill(break_base, now, 7);
	break_len = now;
}

/* Areas that come, change and go. */
static struct slot {
	char *start;
	size_t len;
	int protection;
	uint64_t seed;
} slots[SLOTS];

static void look(struct slot *slot)
{
	if (slot->protection == PROT_NONE) {
		CHECK(faults(slot->start, 0));
		DO(mprotect(slot->start, slot->len, PROT_READ));
		slot->protection = PROT_READ;
	} else if (slot->protection == PROT_READ)
		CHECK(faults(slot->start, 1));
	CHECK(filled(slot->start, slot->len, slot->seed));
}

static void coming_and_going(long n)
{
	static const int protections[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &slots[i];
		if (slot->start)
			look(slot);
		switch ((i + n) % 4) {
		case 0:
			if (slot->start)
				SYS(munmap, slot->start, slot->len);
			slot->len = (size_t)(1 + (i * 7 + n) % 9) * PAGE;
			slot->start = area(slot->len, PROT_READ | PROT_WRITE);
			slot->seed = (uint64_t)n * 100 + (uint64_t)i;
			break;
		case 1:
			if (!slot->start)
				continue;
			DO(mprotect(slot->start, slot->len, PROT_READ | PROT_WRITE));
			slot->start = mremap(slot->start, slot->len, slot->len + 64 * PAGE, MREMAP_MAYMOVE);
			CHECK(slot->start != MAP_FAILED && filled(slot->start, slot->len, slot->seed));
			CHECK(zeros(slot->start + slot->len, 64 * PAGE));
			slot->len += 64 * PAGE;
			break;
		case 2:
			if (!slot->start)
				continue;
			DO(mprotect(slot->start, slot->len, PROT_READ | PROT_WRITE));
			/* A hole is made at its end, and it becomes shorter. */
			if (slot->len > PAGE) {
				DO(munmap(slot->start + slot->len - PAGE, PAGE));
				slot->len -= PAGE;
			}
			break;
		default:
			if (!slot->start)
				continue;
			DO(mprotect(slot->start, slot->len, PROT_READ | PROT_WRITE));
		}
		fill(slot->start, slot->len, slot->seed);
		slot->protection = protections[(i + n) % 3];
		DO(mprotect(slot->start, slot->len, slot->protection));
	}
}

/* Pages between guards, a page that cannot be read and has contents, a reservation that nobody uses. */
static char *guarded, *hidden, *reserved;

static void guards(long n)
{
	CHECK(faults(guarded, 0) && faults(guarded + 3 * PAGE, 0));
	CHECK(filled(guarded + PAGE, 2 * PAGE, 11));
	CHECK(faults(hidden, 0));
	DO(mprotect(hidden, PAGE, PROT_READ | PROT_WRITE));
	uint64_t *counter = (uint64_t *)(hidden + 8);
	CHECK(*(uint64_t *)hidden == 0x1234567 && *counter + 1 == (uint64_t)n);
	*counter = (uint64_t)n;
	DO(mprotect(hidden, PAGE, PROT_NONE));
	CHECK(faults(reserved, 0) && faults(reserved + (1l << 30) - 1, 0));
}

/* What is thrown away reads as zeros, and so it does in the next round. */
static char *dropped, *freed;

static void throwing_away(long n)
{
	size_t keep = (size_t)(n % 8) * PAGE;
	CHECK(zeros(dropped, 64 * PAGE));
	fill(dropped, 64 * PAGE, (uint64_t)n);
	SYS(madvise, dropped + keep, 8 * PAGE, MADV_DONTNEED);
	CHECK(zeros(dropped + keep, 8 * PAGE));
	CHECK(*(uint64_t *)(dropped + 32 * PAGE) == (uint64_t)n * 1000003 + 32 * PAGE);
	SYS(madvise, dropped, 64 * PAGE, MADV_DONTNEED);
	/* Never looked at before the next round. */
	CHECK(filled(freed, 4 * PAGE, 13) && zeros(freed + 4 * PAGE, 4 * PAGE) && filled(freed + 8 * PAGE, 4 * PAGE, 14));
	fill(freed + 4 * PAGE, 4 * PAGE, (uint64_t)n);
	SYS(madvise, freed + 4 * PAGE, 4 * PAGE, MADV_DONTNEED);
}

/* What a child does not get, or gets as zeros; the flags stay with the areas. */
static char *not_forked, *wiped;

/* Memory that this process has in common with children and files. */
static char *anonymous, *file_shared, *memfd_shared, *segment;
static int file_fd, memfd;

__attribute__((noreturn)) static void look_as_child(long n)
{
	if (!faults(not_forked, 0))
		_exit(10);
	if (!zeros(wiped, 4 * PAGE))
		_exit(11);
	char *const kept[] = { anonymous, file_shared, memfd_shared, segment };
	for (int i = 0; i < 4; i++)
		if (*(long *)kept[i] != n || !filled(kept[i] + PAGE, PAGE, 17))
			_exit(12 + i);
	_exit(0);
}

static void in_common(long n)
{
	char *const kept[] = { anonymous, file_shared, memfd_shared, segment };
	for (int i = 0; i < 4; i++) {
		CHECK(*(long *)kept[i] + 1 == n);
		CHECK(filled(kept[i] + PAGE, PAGE, 17));
		*(long *)kept[i] = n;
	}
	long *told = at_edge(sizeof *told);
	SYS(pread64, file_fd, told, sizeof *told, 0);
	CHECK(*told == n);
	SYS(pread64, memfd, told, sizeof *told, 0);
	CHECK(*told == n);
	mix(told, sizeof *told);
	CHECK(filled(not_forked, 4 * PAGE, 15) && filled(wiped, 4 * PAGE, 16));
	pid_t child = DO(fork());
	if (child == 0)
		look_as_child(n);
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status));
	if (WEXITSTATUS(status) != 0)
		fail_at(__FILE__, __LINE__, "a child saw what it should not: %d", WEXITSTATUS(status));
}

/* Files: private with changes, private without, read-only. */
static char *changed, *read_only;

static void files(long n)
{
	CHECK(memcmp(changed, "page 0", 6) == 0 && memcmp(changed + 2 * PAGE, "page 2", 6) == 0);
	CHECK(*(long *)(changed + PAGE) + 1 == n);
	*(long *)(changed + PAGE) = n;
	CHECK(memcmp(changed + PAGE + 100, "of its own", 10) == 0);
	CHECK(memcmp(read_only + PAGE, "page 1", 6) == 0 && faults(read_only, 1));
	/* The file itself has none of it. */
	char *text = at_edge(6);
	int fd = DO(open("pages", O_RDONLY));
	SYS(pread64, fd, text, 6, PAGE);
	CHECK(memcmp(text, "page 1", 6) == 0);
	close(fd);
}

/* A stack of its own that grows down, and the process's, which is used much more in some rounds. */
static char *stack_top;
static size_t stack_used;

static void growing(void)
{
	CHECK(filled(stack_top - stack_used, stack_used, 19));
	size_t now = stack_used + 2 * PAGE;
	if (now > GROWTH / 2)
		return;
	/* From above, as a stack is used. */
	for (size_t at = stack_used + 512; at <= now; at += 512)
		*(volatile char *)(stack_top - at) = 1;
	stack_used = now;
	fill(stack_top - stack_used, stack_used, 19);
}

__attribute__((noinline)) static uint64_t dig(int depth, uint64_t seed)
{
	volatile uint64_t room[512];
	for (int i = 0; i < 512; i += 64)
		room[i] = seed + (uint64_t)i;
	uint64_t sum = depth > 0 ? dig(depth - 1, seed + 1) : 0;
	for (int i = 0; i < 512; i += 64)
		sum += room[i];
	return sum;
}

/* Thousands of areas: every second page cannot be written. */
static char *small;

static void many_small(long n)
{
	for (long i = 0; i < SMALL; i++)
		CHECK(*(long *)(small + i * 2 * PAGE) == i && *(long *)(small + i * 2 * PAGE + PAGE) == -i);
	CHECK(faults(small + (n % SMALL) * 2 * PAGE + PAGE, 1));
	/* Some melt together, and others part. */
	for (long i = 0; i < SMALL; i += 30) {
		char *page = small + (i + n % 30) * 2 * PAGE + PAGE;
		DO(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
		page = small + (i + (n - 1) % 30) * 2 * PAGE + PAGE;
		DO(mprotect(page, PAGE, PROT_READ));
	}
}

static char *locked;

/* Returns how much of the process cannot be paged out, as the kernel counts it. */
static long locked_kb(void)
{
	char *text = at_edge(8192);
	int fd = DO(open("/proc/self/status", O_RDONLY));
	long len = SYS(read, fd, text, 8191);
	close(fd);
	text[len] = 0;
	char *line = strstr(text, "VmLck:");
	CHECK(line);
	return atol(line + 6);
}

static void setup(void)
{
	struct sigaction action = { .sa_handler = on_fault };
	DO(sigaction(SIGSEGV, &action, NULL));
	guarded = area(4 * PAGE, PROT_NONE);
	DO(mprotect(guarded + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE));
	fill(guarded + PAGE, 2 * PAGE, 11);
	hidden = area(PAGE, PROT_READ | PROT_WRITE);
	*(uint64_t *)hidden = 0x1234567;
	DO(mprotect(hidden, PAGE, PROT_NONE));
	reserved = mmap(NULL, 1l << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(reserved != MAP_FAILED);
	dropped = area(64 * PAGE, PROT_READ | PROT_WRITE);
	freed = area(12 * PAGE, PROT_READ | PROT_WRITE);
	fill(freed, 4 * PAGE, 13);
	fill(freed + 8 * PAGE, 4 * PAGE, 14);
	not_forked = area(4 * PAGE, PROT_READ | PROT_WRITE);
	fill(not_forked, 4 * PAGE, 15);
	DO(madvise(not_forked, 4 * PAGE, MADV_DONTFORK));
	wiped = area(4 * PAGE, PROT_READ | PROT_WRITE);
	fill(wiped, 4 * PAGE, 16);
	DO(madvise(wiped, 4 * PAGE, MADV_WIPEONFORK));
	locked = area(8 * PAGE, PROT_READ | PROT_WRITE);
	fill(locked, 8 * PAGE, 18);
	DO(mlock(locked, 8 * PAGE));

	anonymous = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	file_fd = DO(open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644));
	DO(ftruncate(file_fd, 2 * PAGE));
	file_shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file_fd, 0);
	memfd = DO(memfd_create("areas", MFD_CLOEXEC));
	DO(ftruncate(memfd, 2 * PAGE));
	memfd_shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	int id = DO(shmget(IPC_PRIVATE, 2 * PAGE, IPC_CREAT | 0600));
	segment = shmat(id, NULL, 0);
	/* It goes with its last user. */
	DO(shmctl(id, IPC_RMID, NULL));
	CHECK(anonymous != MAP_FAILED && file_shared != MAP_FAILED && memfd_shared != MAP_FAILED && segment != (void *)-1);
	char *const kept[] = { anonymous, file_shared, memfd_shared, segment };
	for (int i = 0; i < 4; i++)
		fill(kept[i] + PAGE, PAGE, 17);

	int fd = DO(open("pages", O_RDWR | O_CREAT | O_TRUNC, 0644));
	DO(ftruncate(fd, 3 * PAGE));
	for (int i = 0; i < 3; i++) {
		char text[10];
		snprintf(text, sizeof text, "page %d", i);
		CHECK(pwrite(fd, text, 6, i * PAGE) == 6);
	}
	changed = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	read_only = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(changed != MAP_FAILED && read_only != MAP_FAILED);
	*(long *)(changed + PAGE) = 0;
	memcpy(changed + PAGE + 100, "of its own", 10);
	close(fd);

	/* As far as the kernel keeps others away from it there is room below it, and then a reservation. */
	char *room = area(2 * GROWTH, PROT_NONE);
	DO(munmap(room + GROWTH, GROWTH));
	stack_top = room + 2 * GROWTH;
	void *stack = mmap(stack_top - PAGE, PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(stack == stack_top - PAGE);

	small = area((size_t)SMALL * 2 * PAGE, PROT_READ | PROT_WRITE);
	for (long i = 0; i < SMALL; i++) {
		*(long *)(small + i * 2 * PAGE) = i;
		*(long *)(small + i * 2 * PAGE + PAGE) = -i;
		DO(mprotect(small + i * 2 * PAGE + PAGE, PAGE, PROT_READ));
	}
	/* The library has its part of it before that. */
	char *volatile first = malloc(1000);
	free(first);
	break_base = sbrk(0);
}

static long rounds;

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	/* Counted here: what is remembered must follow one by one. */
	rounds++;
	moving_break(rounds);
	coming_and_going(rounds);
	guards(rounds);
	throwing_away(rounds);
	in_common(rounds);
	files(rounds);
	growing();
	mix_value((long)dig(rounds % 3 == 0 ? 900 : 20, (uint64_t)rounds));
	many_small(rounds);
	CHECK(filled(locked, 8 * PAGE, 18) && locked_kb() == 8 * PAGE / 1024);
	fill(locked, 8 * PAGE, 18);
}
