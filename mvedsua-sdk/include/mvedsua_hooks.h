/* mvedsua_hooks.h: for the hooks of a package with `method = "binary"`. docs/binary.md has a guide.
 *
 * A shared object (`cc -shared -fPIC -O2 -o hooks.so hooks.c`) defines one or both of the two functions below. They run once, in
 * the new version alone, before it is compared with the old one, while no other thread of it runs. What they return other
 * than 0 ends the update, and the service goes on as it was.
 *
 * They may use functions of libraries that the program has loaded, and what it exports. They make no system calls: one that
 * begins one has failed. Nothing of the object is there afterwards, so no pointer to it may be left in the program.
 */
#ifndef MVEDSUA_HOOKS_H
#define MVEDSUA_HOOKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MVEDSUA_HOOKS_VERSION 1

/* An object that the hooks convert. Where its sizes differ it moves: the new version uses another one, which begins with the
 * values of the new file. Where they are the same the new version goes on with the old one, and both places are one. */
struct mvedsua_object {
    const char *name;
    void *old_place;
    size_t old_size;
    void *new_place;
    size_t new_size;
};

struct mvedsua_hooks {
    uint32_t version; /* MVEDSUA_HOOKS_VERSION */
    uint32_t count;
    const struct mvedsua_object *objects;
    /* Room for a text that says why a hook fails. */
    char *reason;
    size_t reason_room;
};

/* Before the new version's functions are in place, and behind that. */
__attribute__((visibility("default"))) int mvedsua_before(const struct mvedsua_hooks *hooks);
__attribute__((visibility("default"))) int mvedsua_after(const struct mvedsua_hooks *hooks);

/* The object of a name, as `package build --transforms` was given it; NULL where there is none. */
static inline const struct mvedsua_object *mvedsua_object(const struct mvedsua_hooks *hooks, const char *name) {
    for (uint32_t index = 0; index < hooks->count; index++) {
        const char *known = hooks->objects[index].name, *wanted = name;
        while (*known && *known == *wanted)
            known++, wanted++;
        if (*known == *wanted)
            return &hooks->objects[index];
    }
    return NULL;
}

/* Where the old version has an object, and where the new one has it. */
static inline void *mvedsua_old_object(const struct mvedsua_hooks *hooks, const char *name) {
    const struct mvedsua_object *object = mvedsua_object(hooks, name);
    return object ? object->old_place : NULL;
}

static inline void *mvedsua_new_object(const struct mvedsua_hooks *hooks, const char *name) {
    const struct mvedsua_object *object = mvedsua_object(hooks, name);
    return object ? object->new_place : NULL;
}

/* `return mvedsua_fail(hooks, "why");` */
static inline int mvedsua_fail(const struct mvedsua_hooks *hooks, const char *why) {
    size_t at = 0;
    while (why[at] && at + 1 < hooks->reason_room) {
        hooks->reason[at] = why[at];
        at++;
    }
    hooks->reason[at] = 0;
    return 1;
}

#ifdef __cplusplus
}
#endif

#endif
