/* Functions that go through arrays up to an address behind them, where other objects lie. */
#include <stdio.h>
#include <string.h>

struct step {
    int from, to, times;
};

struct entry {
    const char *name;
    int value;
};

static const struct step steps[] = {{1, 2, 3}, {3, 4, 1}, {5, 6, 1}, {7, 8, 2}, {9, 9, 9}, {11, 10, 9}};

static const struct entry entries[] = {
    {"one", 1}, {"two", 2}, {"three", 3}, {"four", 4}, {"five", 5}, {"six", 6}, {"seven", 7},
#ifdef TABLE_GREW
    {"eight", 8},
#endif
};

static const struct entry others[] = {
    {"alpha", 10}, {"beta", 11}, {"gamma", 12}, {"delta", 13}, {"epsilon", 14}, {"zeta", 15}, {"eta", 16},
};

/* The end of an array in a register of its own: the compiler may not calculate it from the start. */
#define BEHIND(array) \
    ({ \
        __typeof__(&*array) behind = array + sizeof array / sizeof *array; \
        __asm__("" : "+r"(behind)); \
        behind; \
    })

__attribute__((noinline)) int walk(int at, FILE *out) {
    const struct step *end = BEHIND(steps);
    for (const struct step *step = steps; step != end; step++) {
#ifdef BODY_CHANGED
        if (at < 0)
            return -1;
#endif
        if (step->from == at)
            at = step->to * step->times;
        if (out)
            fprintf(out, "%d\n", at);
    }
    return at;
}

__attribute__((noinline)) int find_other(const char *name) {
    const struct entry *end = BEHIND(others);
    for (const struct entry *one = others; one != end; one++)
        if (strcmp(one->name, name) == 0)
            return one->value;
    return -1;
}

__attribute__((noinline)) int find(const char *name) {
    const struct entry *end = BEHIND(entries);
    for (const struct entry *one = entries; one != end; one++)
        if (strcmp(one->name, name) == 0)
            return one->value;
    return -1;
}

__attribute__((noinline)) const void *tell(int which) {
    return which ? (const void *)steps : (const void *)others;
}

int main(int argc, char **argv) {
    int sum = 0;
    for (int i = 1; i < argc; i++)
        sum += walk(i, i > 3 ? stdout : NULL) + find(argv[i]) + find_other(argv[i]) + (tell(i) != argv);
    printf("%d\n", sum);
    return 0;
}
