/*
 * Calls that the table refuses, and a number that it does not know. Each fails when made with these arguments, so the program
 * goes on; while two versions run, each ends the update and nothing else.
 *
 *     go N NAME       make the call of that name
 *
 * rows: shmget shmat shmctl shmdt execve execveat ptrace modify_ldt iopl ioperm io_setup io_destroy io_getevents io_submit
 * rows: io_cancel io_pgetevents remap_file_pages unshare vmsplice perf_event_open setns process_vm_readv process_vm_writev
 * rows: seccomp bpf userfaultfd io_uring_setup io_uring_enter io_uring_register pidfd_getfd process_madvise memfd_secret
 * rows: map_shadow_stack prctl/PR_SET_SECCOMP prctl/PR_SET_TSC prctl/PR_SET_MM prctl/PR_SET_SYSCALL_USER_DISPATCH
 * rows: fcntl/F_NOTIFY sysfs pivot_root quotactl quotactl_fd kexec_load kexec_file_load add_key request_key keyctl uretprobe
 * rows: uprobe open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr open_tree_attr landlock_restrict_self
 * rows: lsm_get_self_attr lsm_set_self_attr lsm_list_modules get_robust_list move_pages prctl/PR_SCHED_CORE
 * rows: prctl/PR_SET_SHADOW_STACK_STATUS prctl/PR_TIMER_CREATE_RESTORE_IDS ioctl/TIOCLINUX ioctl/TIOCSSERIAL ioctl/SIOCADDRT
 * rows: ioctl/SIOCDELRT ioctl/SIOCGIFVLAN ioctl/SIOCSIFVLAN ioctl/SIOCBONDENSLAVE ioctl/SIOCSHWTSTAMP ioctl/SIOCGHWTSTAMP
 * rows: ioctl/SG_IO ioctl/FS_IOC_FIEMAP ioctl/FIDEDUPERANGE ioctl/RNDADDENTROPY ioctl/TUNSETTXFILTER ioctl/TUNATTACHFILTER
 * rows: ioctl/TUNDETACHFILTER ioctl/TUNSETSTEERINGEBPF ioctl/TUNSETFILTEREBPF
 */
#include "guest.h"

static const struct {
	const char *name;
	int nr;
} calls[] = {
	{ "shmget", 29 }, { "shmat", 30 }, { "shmctl", 31 }, { "shmdt", 67 }, { "execve", 59 }, { "execveat", 322 },
	{ "ptrace", 101 }, { "modify_ldt", 154 }, { "iopl", 172 }, { "ioperm", 173 }, { "io_setup", 206 }, { "io_destroy", 207 },
	{ "io_getevents", 208 }, { "io_submit", 209 }, { "io_cancel", 210 }, { "io_pgetevents", 333 }, { "remap_file_pages", 216 },
	{ "unshare", 272 }, { "vmsplice", 278 }, { "perf_event_open", 298 }, { "setns", 308 }, { "process_vm_readv", 310 },
	{ "process_vm_writev", 311 }, { "seccomp", 317 }, { "bpf", 321 }, { "userfaultfd", 323 }, { "io_uring_setup", 425 },
	{ "io_uring_enter", 426 }, { "io_uring_register", 427 }, { "pidfd_getfd", 438 }, { "process_madvise", 440 },
	{ "memfd_secret", 447 }, { "map_shadow_stack", 453 }, { "sysfs", 139 }, { "pivot_root", 155 }, { "quotactl", 179 },
	{ "quotactl_fd", 443 }, { "kexec_load", 246 }, { "kexec_file_load", 320 }, { "add_key", 248 }, { "request_key", 249 },
	{ "keyctl", 250 }, { "uretprobe", 335 }, { "uprobe", 336 }, { "open_tree", 428 }, { "move_mount", 429 }, { "fsopen", 430 },
	{ "fsconfig", 431 }, { "fsmount", 432 }, { "fspick", 433 }, { "mount_setattr", 442 }, { "open_tree_attr", 467 },
	{ "landlock_restrict_self", 446 }, { "lsm_get_self_attr", 459 }, { "lsm_set_self_attr", 460 }, { "lsm_list_modules", 461 },
	{ "get_robust_list", 274 }, { "move_pages", 279 }, { "511", 511 },
};

static const struct {
	const char *name;
	int nr;
	long args[2];
} requests[] = {
	{ "prctl/PR_SET_SECCOMP", 157, { 22, 77 } },
	{ "prctl/PR_SET_TSC", 157, { 26, 77 } },
	{ "prctl/PR_SET_MM", 157, { 35, 77 } },
	{ "prctl/PR_SET_SYSCALL_USER_DISPATCH", 157, { 59, 77 } },
	{ "prctl/PR_SCHED_CORE", 157, { 62, 77 } },
	{ "prctl/PR_SET_SHADOW_STACK_STATUS", 157, { 75, -1 } },
	{ "prctl/PR_TIMER_CREATE_RESTORE_IDS", 157, { 77, 77 } },
	{ "fcntl/F_NOTIFY", 72, { 0, 1026 } },
	{ "ioctl", 16, { 0, 0x12345678 } },
	{ "ioctl/TIOCLINUX", 16, { -1, 0x541c } },
	{ "ioctl/TIOCSSERIAL", 16, { -1, 0x541f } },
	{ "ioctl/SIOCADDRT", 16, { -1, 0x890b } },
	{ "ioctl/SIOCDELRT", 16, { -1, 0x890c } },
	{ "ioctl/SIOCGIFVLAN", 16, { -1, 0x8982 } },
	{ "ioctl/SIOCSIFVLAN", 16, { -1, 0x8983 } },
	{ "ioctl/SIOCBONDENSLAVE", 16, { -1, 0x8990 } },
	{ "ioctl/SIOCSHWTSTAMP", 16, { -1, 0x89b0 } },
	{ "ioctl/SIOCGHWTSTAMP", 16, { -1, 0x89b1 } },
	{ "ioctl/SG_IO", 16, { -1, 0x2285 } },
	{ "ioctl/FS_IOC_FIEMAP", 16, { -1, 0xc020660b } },
	{ "ioctl/FIDEDUPERANGE", 16, { -1, 0xc0189436 } },
	{ "ioctl/RNDADDENTROPY", 16, { -1, 0x40085203 } },
	{ "ioctl/TUNSETTXFILTER", 16, { -1, 0x400454d1 } },
	{ "ioctl/TUNATTACHFILTER", 16, { -1, 0x401054d5 } },
	{ "ioctl/TUNDETACHFILTER", 16, { -1, 0x401054d6 } },
	{ "ioctl/TUNSETSTEERINGEBPF", 16, { -1, 0x800454e0 } },
	{ "ioctl/TUNSETFILTEREBPF", 16, { -1, 0x800454e1 } },
};

static void on_sigill(int number)
{
	(void)number;
}

static void setup(void)
{
	/* That is how the kernel answers who calls uretprobe by himself. */
	DO(signal(SIGILL, on_sigill) == SIG_ERR ? -1 : 0);
}

static void round_of(long n, const char *word)
{
	(void)n;
	int made = 0;
	for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		if (word[0] != 0 && strcmp(calls[i].name, word) != 0)
			continue;
		/* modify_ldt says its errors in 32 bits. */
		CHECK(syscall(calls[i].nr, -1L, -1L, -1L, -1L, -1L, -1L) != 0);
		made++;
	}
	for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		if (word[0] != 0 && strcmp(requests[i].name, word) != 0)
			continue;
		CHECK(syscall(requests[i].nr, requests[i].args[0], requests[i].args[1], -1L, -1L, -1L) == -1);
		made++;
	}
	CHECK(made > 0);
}
