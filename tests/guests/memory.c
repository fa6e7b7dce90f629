/*
 * The address space: anonymous memory, advice, locks on pages.
 *
 * rows: mmap munmap mprotect mremap brk madvise mincore mlock mlock2 munlock mlockall munlockall
 * rows: mbind set_mempolicy get_mempolicy membarrier pkey_alloc pkey_free pkey_mprotect set_mempolicy_home_node mseal
 * rows: migrate_pages migrate_pages/SELF move_pages/SELF
 */
#include "guest.h"

/* What a child would not have, or would have as zeros: the new version is no child. */
static unsigned char *uncopied[2], last[2] = { 1, 2 };

static void setup(void)
{
	static const int advice[] = { MADV_DONTFORK, MADV_WIPEONFORK };
	for (int i = 0; i < 2; i++) {
		uncopied[i] = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(uncopied[i] != MAP_FAILED);
		memset(uncopied[i], i + 1, 65536);
		SYS(madvise, uncopied[i], 65536, advice[i]);
	}
}

static void round_of(long n, const char *word)
{
	(void)word;
	for (int i = 0; i < 2; i++) {
		CHECK(uncopied[i][0] == last[i] && uncopied[i][65535] == i + 1);
		uncopied[i][0] = last[i] = (unsigned char)n;
		mix(uncopied[i], 65536);
	}
	size_t size = 1 << 20;
	unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	memset(memory, (int)n, size);
	memory = mremap(memory, size, 2 * size, MREMAP_MAYMOVE);
	CHECK(memory != MAP_FAILED && memory[size - 1] == (unsigned char)n && memory[size] == 0);
	SYS(mprotect, memory, 4096, PROT_READ);
	SYS(madvise, memory + size, size, MADV_DONTNEED);
	CHECK(memory[size] == 0);
	mix(memory + size - 16, 32);
	unsigned char resident[512];
	SYS(mincore, memory, 2 * size, resident);
	SYS(mlock, memory, 4096);
	SYS(mlock2, memory + 4096, 4096, 1 /* MLOCK_ONFAULT */);
	SYS(munlock, memory, 8192);
	SYS(mlockall, 4 /* MCL_ONFAULT */ | MCL_CURRENT);
	SYS(munlockall);
	/* Kernels without NUMA or protection keys refuse these; that is an answer as well. */
	int mode = 0;
	syscall(SYS_mbind, memory, size, 0, NULL, 0, 0);
	syscall(SYS_set_mempolicy, 0, NULL, 0);
	syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0);
	uint64_t nodes = 1;
	void *page = memory;
	int status = 0;
	syscall(SYS_migrate_pages, 0, 64, &nodes, &nodes);
	mix_value(syscall(SYS_migrate_pages, getpid(), 64, copied(&nodes, 8), copied(&nodes, 8)));
	syscall(SYS_move_pages, 0, 1, &page, NULL, &status, 0);
	syscall(SYS_set_mempolicy_home_node, memory, 4096, 0, 0);
	/* Sealed, a page can be neither unmapped nor changed any more; once is enough. */
	static void *sealed;
	if (sealed == NULL) {
		sealed = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(sealed != MAP_FAILED && syscall(462 /* mseal */, sealed, 4096, 0) == 0);
	}
	CHECK(munmap(sealed, 4096) == -1 && errno == EPERM);
	SYS(membarrier, 0 /* MEMBARRIER_CMD_QUERY */, 0, 0);
	long key = syscall(SYS_pkey_alloc, 0, 0);
	if (key >= 0) {
		SYS(pkey_mprotect, memory, 4096, PROT_READ, key);
		SYS(pkey_free, key);
	} else {
		CHECK(syscall(SYS_pkey_free, -1L) == -1);
		CHECK(syscall(SYS_pkey_mprotect, memory, 4096, PROT_READ, 0) == -1 || 1);
	}
	SYS(munmap, memory, 2 * size);

	void *top = (void *)syscall(SYS_brk, 0), *grown = (char *)top + 65536;
	CHECK((void *)syscall(SYS_brk, grown) == grown);
	memset(top, 1, 65536);
	CHECK((void *)syscall(SYS_brk, top) == top);
	unsigned char *heap = malloc(4 << 20);
	memset(heap, 7, 4 << 20);
	mix(heap, 64);
	free(heap);
}
