/*
 * Time and random bytes as programs ask for them: through the functions that the kernel maps into every process, without a
 * system call. They must be calls while two versions run, time never goes backward, and both versions are told the same.
 *
 * rows: (none of its own: natively these make no call)
 */
#include "guest.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <time.h>

static struct timespec last[2];
static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE };

/* vgetrandom_opaque_params of include/uapi/linux/random.h, which is newer than this machine's headers may be. */
struct random_params {
	uint32_t size, protection, flags, reserved[13];
};
typedef ssize_t random_function(void *buffer, size_t len, unsigned flags, void *state, size_t state_len);
static random_function *vdso_random;
static void *random_state;
static size_t random_state_len;

/* Asks how a state is allocated and allocates one, as newer C libraries do when they start. */
static void setup(void)
{
	void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
	vdso_random = vdso ? (random_function *)dlvsym(vdso, "__vdso_getrandom", "LINUX_2.6") : NULL;
	if (!vdso_random)
		return;
	struct random_params params = { 0 };
	CHECK(vdso_random(NULL, 0, 0, &params, -1) == 0 && params.size);
	random_state_len = params.size;
	random_state = mmap(NULL, params.size, params.protection, params.flags, -1, 0);
	CHECK(random_state != MAP_FAILED);
}

static void random_bytes(void)
{
	unsigned char first[40] = { 0 }, second[40] = { 0 };
	if (!vdso_random)
		return;
	CHECK(vdso_random(first, sizeof first, 0, random_state, random_state_len) == sizeof first);
	CHECK(vdso_random(second, sizeof second, 0, random_state, random_state_len) == sizeof second);
	CHECK(memcmp(first, second, sizeof first) != 0);
	mix(first, sizeof first);
	mix(second, sizeof second);
	/* A program that asks only now gets either answer, and the same one in both versions. */
	struct random_params params = { 0 };
	ssize_t told = vdso_random(NULL, 0, 0, &params, -1);
	CHECK(told == 0 || told == -ENOSYS);
	mix_value(told);
}

/* A thread that reads the clock without pause and says what it read. */
static void *spin(void *arg)
{
	struct timespec *now = arg, before = { 0, 0 };
	for (int i = 0; i < 200; i++) {
		CHECK(clock_gettime(CLOCK_MONOTONIC, now) == 0);
		CHECK(now->tv_sec > before.tv_sec || (now->tv_sec == before.tv_sec && now->tv_nsec >= before.tv_nsec));
		before = *now;
	}
	return NULL;
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	struct timespec now, seen;
	struct timeval tv;
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, spin, &seen) == 0);
	for (int i = 0; i < 100; i++) {
		for (int c = 0; c < 2; c++) {
			DO(clock_gettime(clocks[c], &now));
			CHECK(now.tv_sec > last[c].tv_sec ||
			      (now.tv_sec == last[c].tv_sec && now.tv_nsec >= last[c].tv_nsec));
			last[c] = now;
			mix(&now, sizeof now);
		}
		DO(clock_gettime(CLOCK_REALTIME, &now));
		mix(&now, sizeof now);
		DO(gettimeofday(&tv, NULL));
		mix(&tv, sizeof tv);
	}
	mix_value(time(NULL));
	random_bytes();
	CHECK(sched_getcpu() >= 0);
	DO(clock_getres(CLOCK_REALTIME, &now));
	CHECK(pthread_join(thread, NULL) == 0);
	mix(&seen, sizeof seen);
}
