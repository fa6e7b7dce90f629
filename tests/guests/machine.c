/*
 * What concerns the whole machine: asked for, or wanted in a way that changes nothing.
 *
 * rows: syslog ustat vhangup acct settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname init_module
 * rows: delete_module finit_module clock_settime clock_adjtime fanotify_init fanotify_mark kcmp kcmp/EPOLL_TFD
 * rows: landlock_create_ruleset landlock_add_rule/PATH_BENEATH landlock_add_rule/NET_PORT process_mrelease statmount listmount
 */
#include "guest.h"

#include <linux/landlock.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>

static void setup(void)
{
}

/* Makes a call that is allowed to fail: not every machine has it. */
#define TRIED(name, ...) mix_value(syscall(SYS_##name, ##__VA_ARGS__) == -1 ? -errno : 0)

static void asked(void)
{
	char *text = at_edge(100);
	long got = SYS(syslog, 3, text, 100);
	CHECK(got >= 0 && got <= 100);
	mix(text, 100);
	mix_value(SYS(syslog, 10, NULL, 0));
	struct stat st;
	DO(stat(".", &st));
	void *state = at_edge(32);
	SYS(ustat, makedev(major(st.st_dev), minor(st.st_dev)), state);
	mix(state, 32);
	struct timex *clock = memset(at_edge(sizeof *clock), 0, sizeof *clock);
	mix_value(SYS(clock_adjtime, CLOCK_REALTIME, clock));
	mix(clock, sizeof *clock);
	CHECK(SYS(kcmp, getpid(), getpid(), 2 /* KCMP_FILES */, 0, 0) == 0);
	int set = DO(epoll_create1(0)), event = DO(eventfd(0, 0));
	struct epoll_event in = { EPOLLIN, { .ptr = &set } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, event, &in));
	unsigned slot[3] = { set, event, 0 };
	CHECK(SYS(kcmp, getpid(), getpid(), 7 /* KCMP_EPOLL_TFD */, event, copied(slot, sizeof slot)) == 0);
	close(set);
	close(event);
}

/* Linux 6.8. */
static void mounts(void)
{
	struct {
		unsigned size, spare;
		unsigned long long id, param;
	} request = { 24, 0, -1ull /* the root's */, 0 };
	unsigned long long *ids = at_edge(40);
	long count = syscall(458, copied(&request, sizeof request), ids, 5, 0);
	CHECK(count > 0);
	mix_value(count);
	mix(ids, 40);
	request.id = ids[0];
	request.param = 2; /* STATMOUNT_MNT_BASIC */
	char *state = at_edge(1024);
	CHECK(syscall(457, copied(&request, sizeof request), state, 1024, 0) == 0);
	unsigned size = *(unsigned *)state;
	CHECK(size >= 512 && size <= 1024 && untouched(state + size, 1024 - size));
	mix(state, 1024);
	FAILS(EINVAL, syscall(457, copied(&request, sizeof request), state, 1024, 77));
}

static void notices(long n)
{
	char *name = named("noticed-%ld", n);
	int group = syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
	mix_value(group);
	if (group < 0)
		return;
	close(DO(open(name, O_RDWR | O_CREAT, 0644)));
	SYS(fanotify_mark, group, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, name);
	int other = DO(open(name, O_RDONLY));
	struct fanotify_event_metadata *event = at_edge(sizeof *event);
	CHECK(read(group, event, sizeof *event) == sizeof *event && event->mask == FAN_OPEN && event->pid == getpid());
	/* The event brings a descriptor. */
	struct stat first, second;
	DO(fstat(event->fd, &first));
	DO(fstat(other, &second));
	CHECK(first.st_ino == second.st_ino);
	mix(event, sizeof *event);
	close(event->fd);
	close(other);
	close(group);
	DO(unlink(name));
}

static void confined(void)
{
	struct landlock_ruleset_attr attributes = { .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE };
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	mix_value(version);
	if (version < 0)
		return;
	int rules = MIXED(syscall(SYS_landlock_create_ruleset, copied(&attributes, 8), 8, 0)), here = DO(open(".", O_PATH));
	struct landlock_path_beneath_attr beneath = { LANDLOCK_ACCESS_FS_EXECUTE, here };
	SYS(landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, copied(&beneath, sizeof beneath), 0);
	unsigned long long port[2] = { 1, 80 };
	TRIED(landlock_add_rule, rules, 2 /* LANDLOCK_RULE_NET_PORT */, copied(port, sizeof port), 0);
	close(rules);
	close(here);
}

/* Each with arguments that it refuses, or that leave everything as it is. */
static void changing(void)
{
	struct utsname name;
	DO(uname(&name));
	TRIED(sethostname, copied(name.nodename, strlen(name.nodename)), strlen(name.nodename));
	TRIED(setdomainname, copied(name.domainname, strlen(name.domainname)), strlen(name.domainname));
	struct timeval never = { 0, -1 };
	FAILS(EINVAL, syscall(SYS_settimeofday, copied(&never, sizeof never), NULL));
	struct timespec zero = { 0, 0 };
	FAILS(EINVAL, syscall(SYS_clock_settime, CLOCK_MONOTONIC, copied(&zero, sizeof zero)));
	/* There is no terminal that could be hung up. */
	TRIED(vhangup);
	TRIED(acct, edge("./nowhere/file"));
	TRIED(mount, edge("none"), edge("."), edge("no-such-type"), 0, edge("data"));
	TRIED(umount2, edge("./nowhere"), 0);
	TRIED(swapon, edge("./nowhere"), 0);
	TRIED(swapoff, edge("./nowhere"));
	TRIED(reboot, 1, 2, 3, NULL);
	TRIED(init_module, copied("none", 4), 4, edge(""));
	TRIED(finit_module, -1, edge(""), 0);
	TRIED(delete_module, edge("no_such_module"), O_NONBLOCK);
	FAILS(EINVAL, syscall(448 /* process_mrelease */, -1, 1));
}

static void round_of(long n, const char *word)
{
	(void)word;
	asked();
	mounts();
	notices(n);
	confined();
	changing();
}
