/*
 * Who the process is, asked anew in each round. (`kept` remembers it.)
 *
 * rows: getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid
 * rows: setpgid setsid setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid
 */
#include "guest.h"

static void setup(void)
{
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	/* Fails for the leader of a session; any other leads a group afterwards, and so may not leave its session. */
	mix_value(syscall(SYS_setpgid, 0, 0));
	FAILS(EPERM, syscall(SYS_setsid));
	pid_t pid = SYS(getpid);
	CHECK(pid > 0 && SYS(gettid) == pid && SYS(getppid) >= 0);
	mix_value(pid);
	mix_value(SYS(getppid));
	CHECK(SYS(getpgid, 0) == SYS(getpgrp));
	mix_value(SYS(getpgrp));
	mix_value(SYS(getsid, 0));
	uid_t uid = SYS(getuid), euid = SYS(geteuid);
	gid_t gid = SYS(getgid), egid = SYS(getegid);
	mix_value(uid);
	mix_value(gid);
	uid_t *ids[3] = { at_edge(4), at_edge(4), at_edge(4) };
	SYS(getresuid, ids[0], ids[1], ids[2]);
	CHECK(*ids[0] == uid && *ids[1] == euid);
	SYS(getresgid, ids[0], ids[1], ids[2]);
	CHECK(*ids[0] == gid && *ids[1] == egid);
	mix(ids[2], 4);
	long count = SYS(getgroups, 0, NULL);
	gid_t *groups = at_edge(4 * (count + 2));
	CHECK(SYS(getgroups, count + 2, groups) == count && untouched(groups + count, 8));
	mix(groups, 4 * count);
	if (euid == 0)
		SYS(setgroups, count, groups);
	SYS(setuid, uid);
	SYS(setgid, gid);
	SYS(setreuid, uid, uid);
	SYS(setregid, gid, gid);
	SYS(setresuid, uid, uid, uid);
	SYS(setresgid, gid, gid, gid);
	CHECK(syscall(SYS_setfsuid, uid) == (long)uid);
	CHECK(syscall(SYS_setfsgid, gid) == (long)gid);
}
