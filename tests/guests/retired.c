/*
 * Numbers that Linux has no call for.
 *
 * rows: uselib _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall tuxcall security
 * rows: set_thread_area get_thread_area lookup_dcookie epoll_ctl_old epoll_wait_old vserver
 */
#include "guest.h"

static const short numbers[] = { 134, 156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 205, 211, 212, 214, 215, 236 };

static void setup(void)
{
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		FAILS(ENOSYS, syscall(numbers[i], &i, numbers, -1L));
}
