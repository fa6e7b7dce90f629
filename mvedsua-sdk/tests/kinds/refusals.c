/* What makes an update be given up: chosen with REFUSE, in the version that has the fault. The old one goes on. */
#include "kinds.h"

int number = 1;
int aborted;
#if VERSION == 2 && defined REFUSE_RENAMED
int amount;
MVEDSUA_REGISTER(amount);
#else
MVEDSUA_REGISTER(number);
#endif
#ifdef REFUSE_FORGOTTEN
int other = 7;
#if VERSION == 2
MVEDSUA_REGISTER(other);
#endif
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_abort(void *count)
{
    ++*(int *)count;
}

static void on_signal(int signo)
{
    (void)signo;
}

static void *sleeper(void *argument)
{
    for (;;) {
        sleep(1);
    }
    return argument;
}
#if !(VERSION == 2 && defined REFUSE_NO_THREAD)
MVEDSUA_THREAD(sleeper);
#endif

#if VERSION == 2 && defined REFUSE_TRANSFORMER
static int fail(const void *old_value, void *new_value)
{
    (void)old_value, (void)new_value;
    mvedsua_error("the numbers are against it");
    return 5;
}
MVEDSUA_TRANSFORM("number", fail);
#endif
#if VERSION == 2 && defined REFUSE_SIZE
long wide;
MVEDSUA_REGISTER_AS("number", wide);
#endif
#if VERSION == 2 && defined REFUSE_UNKNOWN
int other;
MVEDSUA_REGISTER(other);
MVEDSUA_TRANSFORM_FROM("other", "nothing", NULL);
#endif
#if VERSION == 2 && defined REFUSE_NOBODYS
MVEDSUA_TRANSFORM("numbers", NULL);
#endif
#if VERSION == 2 && defined REFUSE_SYMBOL
void nobody_has_this(void);
#endif

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv, (void)on_signal, (void)lock;
#if VERSION == 1
    mvedsua_on_abort(on_abort, &aborted);
#if defined REFUSE_LATE || defined REFUSE_NO_THREAD
    pthread_t thread;
    mvedsua_thread_create(&thread, NULL, sleeper, NULL);
#endif
#ifdef REFUSE_STRANGER
    pthread_t thread;
    pthread_create(&thread, NULL, sleeper, NULL);
#endif
#ifdef REFUSE_LOCK
    mvedsua_mutex_lock(&lock);
#endif
#ifdef REFUSE_HANDLER
    signal(SIGUSR1, on_signal);
#endif
#endif
#if VERSION == 2 && defined REFUSE_RETURN
    return 9;
#endif
#if VERSION == 2 && defined REFUSE_LOCAL
    long local = 0;
#else
    int local = 5;
#endif
    MVEDSUA_REGISTER_LOCAL(local);
    for (;;) {
        next_line("loop");
#if VERSION == 2 && defined REFUSE_SYMBOL
        nobody_has_this();
#endif
        SAY("v%d number %d local %d aborted %d %s", VERSION, number++, (int)local, aborted, mvedsua_last_error());
    }
}
