/* Modules in a table, each with functions that look like those of the others; another one may stand before or between them. */
#include <stdio.h>
#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))

struct hooks {
    void (*before)(void);
    void (*after)(void);
};

struct module {
    long place;
    const struct hooks *hooks;
    long (*run)(long);
};

static long (*top)(long);

#define MODULE(NAME, FACTOR)                                                                                                     \
    static struct module NAME##_module;                                                                                          \
    static long (*NAME##_next)(long);                                                                                            \
    static NOINLINE long NAME##_run(long value) {                                                                                \
        long found = value * FACTOR + NAME##_module.place;                                                                       \
        if (found > FACTOR * 1000)                                                                                               \
            printf("%ld\n", found - FACTOR);                                                                                     \
        return NAME##_next ? NAME##_next(found) : found;                                                                         \
    }                                                                                                                            \
    static NOINLINE void NAME##_before(void) {                                                                                   \
        NAME##_next = top;                                                                                                       \
        top = NAME##_run;                                                                                                        \
    }                                                                                                                            \
    static NOINLINE void NAME##_after(void) {                                                                                    \
        top = NAME##_next;                                                                                                       \
        NAME##_next = 0;                                                                                                         \
    }                                                                                                                            \
    static const struct hooks NAME##_hooks = {NAME##_before, NAME##_after};                                                      \
    static struct module NAME##_module = {1, &NAME##_hooks, NAME##_run};

MODULE(one, 3)
MODULE(two, 5)
#if defined(BETWEEN) || defined(FIRST)
MODULE(another, 41)
#endif
MODULE(three, 7)
MODULE(four, 11)
MODULE(five, 13)
MODULE(six, 17)

static struct module *modules[] = {
#ifdef FIRST
    &another_module,
#endif
    &one_module, &two_module,
#ifdef BETWEEN
    &another_module,
#endif
    &three_module, &four_module, &five_module, &six_module, 0,
};

int main(int argc, char **argv) {
    long place = 0;
    for (struct module **module = modules; *module; module++) {
        (*module)->place = place++;
        (*module)->hooks->before();
    }
    for (int i = 1; i < argc; i++)
        printf("%ld\n", top(atol(argv[i])));
    for (struct module **module = modules; *module; module++)
        (*module)->hooks->after();
    return 0;
}
