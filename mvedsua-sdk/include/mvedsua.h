/* mvedsua.h: for programs that cooperate in their own updates. See README.md beside this folder's parent for a guide.
 *
 * Each version of the program is a shared object that includes this header and defines mvedsua_main, its entry. A small
 * executable (driver/mvedsua-run.c) holds the runtime, libmvedsua.a, and loads the first version.
 *
 * Kitsune's names for those who know them: kitsune_update is mvedsua_update, kitsune_is_updating is mvedsua_updating,
 * MIGRATE_GLOBAL and NOTE_LOCAL are MVEDSUA_REGISTER and MVEDSUA_REGISTER_LOCAL, GET_OLD_GLOBAL is mvedsua_old.
 */
#ifndef MVEDSUA_H
#define MVEDSUA_H

#include <pthread.h>
#include <stddef.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MVEDSUA_ABI 1

/* ---- The entry ------------------------------------------------------------------------------------------------- */

/* The entry of a version. It is called when the program starts; and, with mvedsua_updating() true, when this version
 * takes the place of another: then it must not do anew what is done (open, listen, make threads), and must come to the
 * update point at which the old version stopped. */
__attribute__((visibility("default"))) int mvedsua_main(int argc, char **argv);

/* Loads a version and runs its entry; for the executable. Returns what the entry returns. */
int mvedsua_run(const char *object, int argc, char **argv);

/* ---- Update points --------------------------------------------------------------------------------------------- */

/* 1 while an update is asked for. One for each object, so that looking at it takes one load. */
__attribute__((weak, visibility("hidden"))) volatile int mvedsua_pending;

void mvedsua_update_slow(const char *point);

/* An update point: a place in a long-running loop at which this thread may pass over to the new version. */
static inline __attribute__((always_inline)) void mvedsua_update(const char *point)
{
    if (__builtin_expect(mvedsua_pending, 0)) {
        mvedsua_update_slow(point);
    }
}

/* 1 while this thread is on its way to the update point at which the old version stopped. */
int mvedsua_updating(void);

/* The name of that update point; NULL when this thread is not on its way. */
const char *mvedsua_updating_from(void);

/* ---- State ----------------------------------------------------------------------------------------------------- */

struct mvedsua_variable {
    const char *name;
    void *address;
    size_t size;
};

#define MVEDSUA_CONCAT_(a, b) a##b
#define MVEDSUA_CONCAT(a, b) MVEDSUA_CONCAT_(a, b)
#define MVEDSUA_ENTRY_(type, part) \
    static struct type MVEDSUA_CONCAT(part, __COUNTER__) __attribute__((used, section(#part), aligned(8)))

/* At file scope: a global or static variable whose value the next version takes over. Without a transformer the value is
 * copied, which needs equal sizes. A variable that the old version has not registered keeps its initial value. */
#define MVEDSUA_REGISTER(variable) MVEDSUA_REGISTER_AS(#variable, variable)
/* The same under another name, for example of a static variable that several files have. */
#define MVEDSUA_REGISTER_AS(name, variable) \
    MVEDSUA_ENTRY_(mvedsua_variable, mvedsua_variables) = {name, (void *)&(variable), sizeof(variable)}

void *mvedsua_register_local(const char *function, const char *name, void *address, size_t size);
void mvedsua_unregister_local(void *address);
static inline __attribute__((unused)) void mvedsua_cleanup_local(void **address)
{
    mvedsua_unregister_local(*address);
}

/* In a function, after the definition of the variable: its value is taken over where the new version registers the same
 * variable of the same function, in the same thread. Its name for transformers is "function.variable". */
#define MVEDSUA_REGISTER_LOCAL(variable)                                                                    \
    __attribute__((cleanup(mvedsua_cleanup_local), unused)) void *MVEDSUA_CONCAT(mvedsua_local_, variable) = \
        mvedsua_register_local(__func__, #variable, (void *)&(variable), sizeof(variable))

/* ---- Transformers ---------------------------------------------------------------------------------------------- */

/* Makes the new value out of the old one and returns 0; anything else ends the update. `old_value` is NULL where the old
 * version has no such variable. What it allocates and frees is the program's own heap. */
typedef int (*mvedsua_transformer)(const void *old_value, void *new_value);

struct mvedsua_transform {
    const char *name;
    const char *old_name;
    mvedsua_transformer run;
};

/* At file scope, in the new version: how a variable (by name, in quotes) is made. */
#define MVEDSUA_TRANSFORM(name, function) MVEDSUA_TRANSFORM_FROM(name, name, function)
/* The same for one that was called otherwise before; function may be NULL, then the value is copied. The arguments of a
 * thread function `f` have the name "f()". */
#define MVEDSUA_TRANSFORM_FROM(name, old_name, function) \
    MVEDSUA_ENTRY_(mvedsua_transform, mvedsua_transforms) = {name, old_name, function}
/* At file scope, in the new version: a variable of the old version (by name, in quotes) is not needed any more. Without this, a
 * registered variable that the new version neither registers nor makes something of is remarked upon where the versions differ
 * later on; and where another one of its size is new, which could be the same under another name, the update is refused. */
#define MVEDSUA_DROPPED(old_name) MVEDSUA_ENTRY_(mvedsua_transform, mvedsua_transforms) = {NULL, old_name, NULL}
/* A function that runs once after all variables were made; both arguments are NULL. */
#define MVEDSUA_TRANSFORM_LAST(function) MVEDSUA_ENTRY_(mvedsua_transform, mvedsua_transforms) = {NULL, NULL, function}

/* While updating: the address of a variable, registered or exported, of the old version; NULL where it has none. */
void *mvedsua_old(const char *name);
/* While updating: what a pointer of the old version is in the new one. A registered function or variable of the old version
 * becomes the new one's of the same name (a pointer into a variable only where the size is the same), memory that is not the
 * old object's stays; for anything else, NULL. */
void *mvedsua_translate(const void *pointer);
/* Says why a transformer is about to return something else than 0. */
void mvedsua_error(const char *reason);

struct mvedsua_function {
    const char *name;
    const char *old_name;
    void *address;
};

/* At file scope: a function that state may point to, see mvedsua_translate. */
#define MVEDSUA_FUNCTION(function) MVEDSUA_FUNCTION_FROM(function, #function)
/* The same for one that was called otherwise before. */
#define MVEDSUA_FUNCTION_FROM(function, old_name) \
    MVEDSUA_ENTRY_(mvedsua_function, mvedsua_functions) = {#function, old_name, (void *)(function)}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

/* At file scope: a function that threads run. A thread that stopped at an update point goes on in the new version's
 * function of the same name, with the same argument, and runs to the update point of the same name. */
#define MVEDSUA_THREAD(function) MVEDSUA_THREAD_FROM(function, #function)
#define MVEDSUA_THREAD_FROM(function, old_name) \
    MVEDSUA_ENTRY_(mvedsua_function, mvedsua_threads) = {#function, old_name, (void *)(function)}

int mvedsua_thread_create_named(pthread_t *thread, const pthread_attr_t *attributes, const char *name,
                                void *(*function)(void *), void *argument);
/* pthread_create(3) for a thread that passes over to new versions. */
#define mvedsua_thread_create(thread, attributes, function, argument) \
    mvedsua_thread_create_named(thread, attributes, #function, function, argument)

/* As pthread_mutex_lock(3) and so on; and the runtime knows that the thread holds a lock, and refuses an update where one
 * is held at an update point. */
int mvedsua_mutex_lock(pthread_mutex_t *mutex);
int mvedsua_mutex_trylock(pthread_mutex_t *mutex);
int mvedsua_mutex_unlock(pthread_mutex_t *mutex);

/* As pthread_cond_wait(3) and pthread_cond_timedwait(3), and an update point: a thread that waits here for its condition
 * stands at the update point `point`. The mutex is the one thing that may be locked; it is given back meanwhile. Like any
 * wait for a condition it may return although the condition is not there. */
int mvedsua_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, const char *point);
int mvedsua_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline,
                           const char *point);

/* ---- When it does not happen ----------------------------------------------------------------------------------- */

/* Calls a function when an update was given up and this version goes on. Under mvedsuad this version goes on in the leader
 * while a follower is updated: there the function is called at the update point at which the follower is updated, in the first
 * thread, so that what the new version begins anew (a turn in a round robin, say) can begin anew here as well. */
void mvedsua_on_abort(void (*callback)(void *), void *context);
/* Why the last update was given up; an empty string before one was. */
const char *mvedsua_last_error(void);

/* ---- Without a daemon ------------------------------------------------------------------------------------------ */

/* Asks this process to update itself to the version in `object`, at the next update points ("direct" mode). The same is
 * done by the signal SIGUSR2 where the environment variable MVEDSUA_DIRECT names the object. Returns 0, or -1 when an
 * update is under way. */
int mvedsua_request(const char *object);

/* ---- What the runtime reads of a version ----------------------------------------------------------------------- */

#define MVEDSUA_PART_(type, part)                                                  \
    extern struct type __start_##part[] __attribute__((weak, visibility("hidden"))); \
    extern struct type __stop_##part[] __attribute__((weak, visibility("hidden")));
MVEDSUA_PART_(mvedsua_variable, mvedsua_variables)
MVEDSUA_PART_(mvedsua_transform, mvedsua_transforms)
MVEDSUA_PART_(mvedsua_function, mvedsua_functions)
MVEDSUA_PART_(mvedsua_function, mvedsua_threads)

struct mvedsua_object {
    unsigned int abi;
    unsigned int size;
    volatile int *pending;
    int (*entry)(int, char **);
    struct mvedsua_variable *variables, *variables_end;
    struct mvedsua_transform *transforms, *transforms_end;
    struct mvedsua_function *functions, *functions_end;
    struct mvedsua_function *threads, *threads_end;
};

#ifndef MVEDSUA_DRIVER
__attribute__((weak, visibility("default"))) struct mvedsua_object mvedsua_object = {
    MVEDSUA_ABI,
    sizeof(struct mvedsua_object),
    &mvedsua_pending,
    mvedsua_main,
    __start_mvedsua_variables,
    __stop_mvedsua_variables,
    __start_mvedsua_transforms,
    __stop_mvedsua_transforms,
    __start_mvedsua_functions,
    __stop_mvedsua_functions,
    __start_mvedsua_threads,
    __stop_mvedsua_threads,
};
#endif

#ifdef __cplusplus
}
#endif

#endif
