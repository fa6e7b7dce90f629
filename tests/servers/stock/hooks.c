/*
 * Hooks for versions of `service`. What they do is chosen by defining one of these names:
 *
 *   VALUE    the new version's initial value, where nobody has set another    GROWN    the entries, in their new places
 *   CRASHES, SPINS, CALLS, FAILS    what no hook may do                       KEEPS    leaves a pointer to what is over
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mvedsua_hooks.h"

struct entry {
    struct entry *next;
    void (*on_tick)(long *);
    long value;
    char key[];
};

int mvedsua_before(const struct mvedsua_hooks *hooks) {
    return hooks->version == MVEDSUA_HOOKS_VERSION ? 0 : mvedsua_fail(hooks, "another version of the header");
}

#ifdef VALUE
int mvedsua_after(const struct mvedsua_hooks *hooks) {
    long *unit = mvedsua_new_object(hooks, "unit");
    if (!unit || unit != mvedsua_old_object(hooks, "unit"))
        return mvedsua_fail(hooks, "there is no unit");
    if (*unit == 100)
        *unit = 250;
    return 0;
}
#elif defined(GROWN)
static unsigned hash(const char *key) {
    unsigned sum = 5381;
    while (*key)
        sum = sum * 33 + (unsigned char)*key++;
    return sum;
}

int mvedsua_after(const struct mvedsua_hooks *hooks) {
    const struct mvedsua_object *entries = mvedsua_object(hooks, "entries");
    if (!entries || entries->old_size != 16 * sizeof(void *) || entries->new_size != 32 * sizeof(void *))
        return mvedsua_fail(hooks, "there are no entries");
    struct entry **old = entries->old_place, **new = entries->new_place;
    for (size_t place = 0; place < 16; place++)
        for (struct entry *entry = old[place], *next; entry; entry = next) {
            struct entry **head = &new[hash(entry->key) % 32];
            next = entry->next;
            entry->next = *head;
            *head = entry;
        }
    /* From libraries that the program has: one function is chosen at the start (IFUNC), one is not. */
    const char *third = strchr(entries->name, 't');
    if (!third || third - entries->name != 2 || atoi("12") != 12)
        return mvedsua_fail(hooks, "the C library is not there");
#ifdef KEEPS
    new[0] = (struct entry *)&old[1];
#endif
    return 0;
}
#else
int mvedsua_after(const struct mvedsua_hooks *hooks) {
#ifdef CRASHES
    volatile int *nowhere = NULL;
    *nowhere = 1;
#endif
#ifdef SPINS
    for (;;)
        __asm__ volatile("pause");
#endif
#ifdef CALLS
    if (write(2, "a hook", 6) != 6)
        return 1;
#endif
    return mvedsua_object(hooks, "nobody") ? 0 : mvedsua_fail(hooks, "there is no object `nobody`");
}
#endif
