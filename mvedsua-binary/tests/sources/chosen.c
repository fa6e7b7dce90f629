/* A function that is chosen at the start (IFUNC). */
#include <stdio.h>
#include <stdlib.h>

static int calls;

static long one(long value) { calls++; return value + 1; }
static long two(long value) { calls += 2; return value + 2; }

typedef long (*step_fn)(long);

static step_fn choose(void) {
#ifdef OTHER_CHOICE
    return __builtin_cpu_init(), __builtin_cpu_supports("sse2") ? two : one;
#else
    return one;
#endif
}

long step(long value) __attribute__((ifunc("choose")));

__attribute__((noinline)) long twice(long value) {
#ifdef BODY_CHANGED
    if (value < 0)
        return 0;
#endif
    return step(step(value));
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        printf("%ld %d\n", twice(atol(argv[i])), calls);
    return (int)(two(argc) & 1);
}
