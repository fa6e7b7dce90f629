/*
 * A program with a table and a number that a hook converts in its next version:
 *
 *   GREW     the table is longer       EXPORTED  … and others may refer to it (with -rdynamic)
 *   OTHER    the number begins at      POINTER   … and a pointer in data leads to it
 *            another value             IN_MAIN   … and `main` uses it
 *   BEFORE   … and an address before it is taken
 */
#include <stdio.h>
#include <stdlib.h>

#define NOINLINE __attribute__((noinline))

#ifdef GREW
#define SLOTS 24
#else
#define SLOTS 12
#endif
#ifdef OTHER
#define STEP 3
#else
#define STEP 2
#endif
#ifdef EXPORTED
#define LOCAL
#else
#define LOCAL static
#endif

static long calls, last, sum;
static long step = STEP;
LOCAL long slots[SLOTS];
static long more[64];
#ifdef POINTER
static long *current = slots;
#endif

NOINLINE long slot(unsigned index) {
    calls++;
    if (index >= SLOTS)
        return -1;
#ifdef BEFORE
    /* As a compiler may form it. */
    long *before = slots - 3;
    __asm__("" : "+r"(before));
    if (index >= 3)
        return before[index] += step;
#endif
    return slots[index] += step;
}

NOINLINE long other(unsigned index) {
    last = index;
    step += index == 99;
    return more[index % 64] += last + step;
}

NOINLINE void report(void) {
    sum += calls;
    printf("%ld %ld %ld\n", calls, last, sum);
#ifdef POINTER
    printf("%ld\n", *current++);
#endif
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        printf("%ld %ld\n", slot((unsigned)atoi(argv[i])), other((unsigned)i));
#ifdef IN_MAIN
    printf("%ld\n", slots[argc]);
#endif
    report();
    return 0;
}
