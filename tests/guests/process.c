/*
 * The process and the system: limits, attributes, usage, randomness.
 *
 * rows: uname getrlimit setrlimit prlimit64 prlimit64/SET getrusage sysinfo capget capset personality getrandom
 * rows: prctl/PR_SET_PDEATHSIG prctl/PR_GET_PDEATHSIG prctl/PR_GET_DUMPABLE prctl/PR_SET_DUMPABLE prctl/PR_GET_KEEPCAPS
 * rows: prctl/PR_SET_KEEPCAPS prctl/PR_SET_NAME prctl/PR_GET_NAME prctl/PR_CAPBSET_READ prctl/PR_CAPBSET_DROP
 * rows: prctl/PR_GET_SECUREBITS prctl/PR_SET_SECUREBITS prctl/PR_SET_TIMERSLACK prctl/PR_GET_TIMERSLACK
 * rows: prctl/PR_SET_CHILD_SUBREAPER prctl/PR_GET_CHILD_SUBREAPER prctl/PR_SET_NO_NEW_PRIVS prctl/PR_GET_NO_NEW_PRIVS
 * rows: prctl/PR_SET_THP_DISABLE prctl/PR_GET_THP_DISABLE prctl/PR_CAP_AMBIENT prctl/PR_GET_SPECULATION_CTRL
 * rows: prctl/PR_SET_VMA prctl/PR_SET_PTRACER prctl/PR_GET_TIMING prctl/PR_SET_TIMING prctl/PR_GET_SECCOMP
 * rows: prctl/PR_TASK_PERF_EVENTS_DISABLE prctl/PR_TASK_PERF_EVENTS_ENABLE prctl/PR_MCE_KILL prctl/PR_MCE_KILL_GET
 * rows: prctl/PR_GET_TID_ADDRESS prctl/PR_SET_SPECULATION_CTRL prctl/PR_SET_IO_FLUSHER prctl/PR_GET_IO_FLUSHER
 * rows: prctl/PR_SET_MDWE prctl/PR_GET_MDWE prctl/PR_SET_MEMORY_MERGE prctl/PR_GET_MEMORY_MERGE
 * rows: prctl/PR_GET_SHADOW_STACK_STATUS prctl/PR_FUTEX_HASH prctl/PR_GET_AUXV
 * rows: arch_prctl/ARCH_SET_GS arch_prctl/ARCH_SET_FS arch_prctl/ARCH_GET_FS arch_prctl/ARCH_GET_GS
 * rows: arch_prctl/ARCH_GET_CPUID arch_prctl/ARCH_GET_XCOMP_SUPP arch_prctl/ARCH_GET_XCOMP_PERM arch_prctl/ARCH_REQ_XCOMP_PERM
 */
#include "guest.h"

#include <asm/prctl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static void setup(void)
{
}

static void asking(void)
{
	struct utsname *name = at_edge(sizeof *name);
	SYS(uname, name);
	mix(name, sizeof *name);
	struct rusage *usage = at_edge(sizeof *usage);
	SYS(getrusage, RUSAGE_SELF, usage);
	mix(usage, sizeof *usage);
	struct sysinfo *info = at_edge(sizeof *info);
	SYS(sysinfo, info);
	mix(info, sizeof *info);
	unsigned char *random = at_edge(100);
	CHECK(SYS(getrandom, random, 100, 0) == 100);
	mix(random, 100);
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct *caps = at_edge(2 * sizeof *caps);
	SYS(capget, copied(&header, sizeof header), caps);
	mix(caps, 2 * sizeof *caps);
	SYS(capset, copied(&header, sizeof header), caps);
	CHECK(syscall(SYS_personality, 0xffffffff) >= 0);
}

static void limits(long n)
{
	struct rlimit *limit = at_edge(sizeof *limit);
	SYS(getrlimit, RLIMIT_NOFILE, limit);
	mix(limit, sizeof *limit);
	limit->rlim_cur = limit->rlim_max < 100 + (rlim_t)n ? limit->rlim_max : 100 + (rlim_t)n;
	rlim_t wanted = limit->rlim_cur;
	SYS(setrlimit, RLIMIT_NOFILE, limit);
	limit = at_edge(sizeof *limit);
	SYS(prlimit64, 0, RLIMIT_NOFILE, NULL, limit);
	CHECK(limit->rlim_cur == wanted);
	mix(limit, sizeof *limit);
	limit->rlim_cur = limit->rlim_max;
	SYS(prlimit64, 0, RLIMIT_NOFILE, limit, NULL);
	limit = at_edge(sizeof *limit);
	SYS(prlimit64, getpid(), RLIMIT_STACK, NULL, limit);
	mix(limit, sizeof *limit);
}

static void attributes(long n)
{
	char name[16];
	snprintf(name, sizeof name, "round-%ld", n);
	SYS(prctl, PR_SET_NAME, name);
	char *back = at_edge(16);
	SYS(prctl, PR_GET_NAME, back);
	CHECK(strcmp(back, name) == 0);
	int number = 0;
	SYS(prctl, PR_GET_PDEATHSIG, &number);
	SYS(prctl, PR_SET_PDEATHSIG, number);
	long dumpable = SYS(prctl, PR_GET_DUMPABLE), keep = SYS(prctl, PR_GET_KEEPCAPS);
	long bits = SYS(prctl, PR_GET_SECUREBITS), slack = SYS(prctl, PR_GET_TIMERSLACK);
	long huge = SYS(prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
	SYS(prctl, PR_SET_DUMPABLE, dumpable == 1);
	SYS(prctl, PR_SET_KEEPCAPS, keep);
	CHECK(SYS(prctl, PR_CAPBSET_READ, CAP_CHOWN) <= 1);
	syscall(SYS_prctl, PR_CAPBSET_DROP, CAP_AUDIT_READ);
	syscall(SYS_prctl, PR_SET_SECUREBITS, bits);
	SYS(prctl, PR_SET_TIMERSLACK, slack);
	SYS(prctl, PR_GET_CHILD_SUBREAPER, &number);
	SYS(prctl, PR_SET_CHILD_SUBREAPER, number);
	SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	CHECK(SYS(prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	SYS(prctl, PR_SET_THP_DISABLE, huge, 0, 0, 0);
	SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0);
	syscall(SYS_prctl, PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	syscall(SYS_prctl, 0x53564d41 /* PR_SET_VMA */, 0, 0, 0, 0);
	syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
	CHECK(SYS(prctl, PR_GET_TIMING, 0, 0, 0, 0) == PR_TIMING_STATISTICAL);
	SYS(prctl, PR_SET_TIMING, PR_TIMING_STATISTICAL, 0, 0, 0);
	CHECK(SYS(prctl, PR_GET_SECCOMP) == 0);
	SYS(prctl, PR_TASK_PERF_EVENTS_DISABLE, 0, 0, 0, 0);
	SYS(prctl, PR_TASK_PERF_EVENTS_ENABLE, 0, 0, 0, 0);
	syscall(SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0);
	syscall(SYS_prctl, PR_MCE_KILL_GET, 0, 0, 0, 0);
	void *place;
	SYS(prctl, PR_GET_TID_ADDRESS, &place);
	syscall(SYS_prctl, PR_SET_SPECULATION_CTRL, -1L, 0, 0, 0);
	syscall(SYS_prctl, PR_SET_IO_FLUSHER, 0, 0, 0, 0);
	syscall(SYS_prctl, PR_GET_IO_FLUSHER, 0, 0, 0, 0);
	syscall(SYS_prctl, 65 /* PR_SET_MDWE */, -1L, 0, 0, 0);
	syscall(SYS_prctl, 66 /* PR_GET_MDWE */, 0, 0, 0, 0);
	syscall(SYS_prctl, 67 /* PR_SET_MEMORY_MERGE */, 0, 0, 0, 0);
	syscall(SYS_prctl, 68 /* PR_GET_MEMORY_MERGE */, 0, 0, 0, 0);
	syscall(SYS_prctl, 74 /* PR_GET_SHADOW_STACK_STATUS */, &place, 0, 0, 0);
	syscall(SYS_prctl, 78 /* PR_FUTEX_HASH */, 2, 0, 0, 0);
	char auxv[512];
	syscall(SYS_prctl, 0x41555856 /* PR_GET_AUXV */, auxv, sizeof auxv, 0, 0);
}

static void segments(void)
{
	unsigned long fs = 0, gs = 0, features = 0;
	SYS(arch_prctl, ARCH_GET_FS, &fs);
	SYS(arch_prctl, ARCH_SET_FS, fs);
	SYS(arch_prctl, ARCH_GET_GS, &gs);
	SYS(arch_prctl, ARCH_SET_GS, gs);
	syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0);
	syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &features);
	syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &features);
	syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18);
}

static void round_of(long n, const char *word)
{
	(void)word;
	asking();
	limits(n);
	attributes(n);
	segments();
}
