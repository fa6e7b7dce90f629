/* Faults that version 2 can be given at compile time, one of:
 *
 *   BAD_CRASH_AT=N         crashes at its Nth command
 *   BAD_HANG_AT=N          hangs in a loop at its Nth command
 *   BAD_LOCK_AT=N          waits for a lock that nobody gives back, at its Nth command
 *   BAD_BYTE_EVERY=N       answers one byte wrong, at every Nth get
 *   BAD_SLOW=N             computes N microseconds longer at each command
 *   BAD_LEAK=N             loses N bytes at each command
 *   BAD_WRITE_AT=N         writes a file where it must not, at its Nth command: /tmp/kvstore-was-here-N
 *   BAD_TRANSFORMER_CRASHES, BAD_TRANSFORMER_LOOPS, BAD_TRANSFORMER_FAILS
 *   BAD_TRANSFORMER_FREES  frees what is in use
 *   BAD_TRANSFORMER_DROPS=N  drops one entry of N
 *   BAD_SYMBOL             calls a function that nobody has
 *   BAD_ENTRY_RETURNS      its entry does not come to the update point
 *   BAD_ENTRY_LISTENS      its entry opens a socket anew
 */
#ifndef KVSTORE_BAD_H
#define KVSTORE_BAD_H

#include <fcntl.h>

#if defined(BAD_CRASH_AT) || defined(BAD_TRANSFORMER_CRASHES)
static volatile int *volatile bad_nowhere = (int *)16;
#endif
#if defined(BAD_CRASH_AT) || defined(BAD_HANG_AT) || defined(BAD_LOCK_AT) || defined(BAD_WRITE_AT)
static unsigned long bad_commands;
#endif
#ifdef BAD_WRITE_AT
#define BAD_TEXT_OF(value) #value
#define BAD_TEXT(macro) BAD_TEXT_OF(macro)
#endif
#ifdef BAD_BYTE_EVERY
static unsigned long bad_gets;
#endif
#ifdef BAD_SYMBOL
void nobody_has_this_function(void);
#endif

static inline void bad_command(void)
{
#ifdef BAD_CRASH_AT
    if (++bad_commands == BAD_CRASH_AT) {
        *bad_nowhere = 1;
    }
#endif
#ifdef BAD_HANG_AT
    if (++bad_commands == BAD_HANG_AT) {
        for (volatile int on = 1; on;) {
        }
    }
#endif
#ifdef BAD_LOCK_AT
    if (++bad_commands == BAD_LOCK_AT) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&lock);
        pthread_mutex_lock(&lock);
    }
#endif
#ifdef BAD_SLOW
    for (volatile unsigned long i = 0; i < BAD_SLOW * 400UL; i++) {
    }
#endif
#ifdef BAD_LEAK
    memset(room(NULL, BAD_LEAK), 1, BAD_LEAK);
#endif
#ifdef BAD_WRITE_AT
    if (++bad_commands == BAD_WRITE_AT) {
        int fd = open("/tmp/kvstore-was-here-" BAD_TEXT(BAD_WRITE_AT), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (write(fd, "x", 1) < 0) {
            abort();
        }
        close(fd);
    }
#endif
#ifdef BAD_SYMBOL
    nobody_has_this_function();
#endif
}

static inline void bad_byte(char *text)
{
    (void)text;
#ifdef BAD_BYTE_EVERY
    if (++bad_gets % BAD_BYTE_EVERY == 0) {
        text[0] ^= 1;
    }
#endif
}

static inline void bad_transformer(void)
{
#ifdef BAD_TRANSFORMER_CRASHES
    *bad_nowhere = 1;
#endif
#ifdef BAD_TRANSFORMER_LOOPS
    for (volatile int on = 1; on;) {
    }
#endif
}

static inline int bad_drops(size_t seen)
{
    (void)seen;
#ifdef BAD_TRANSFORMER_DROPS
    return seen % BAD_TRANSFORMER_DROPS == 0;
#else
    return 0;
#endif
}

static inline void bad_frees(char *text)
{
    (void)text;
#ifdef BAD_TRANSFORMER_FREES
    free(text);
#endif
}

static inline int bad_entry(void)
{
#ifdef BAD_ENTRY_LISTENS
    socket(AF_INET, SOCK_STREAM, 0);
#endif
#ifdef BAD_ENTRY_RETURNS
    return 1;
#else
    return 0;
#endif
}

#endif
