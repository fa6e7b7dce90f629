/* Four workers wait for work; a ticker sleeps. All pass over, and a thread that is joined later is the same thread. The first
 * argument of a worker is changed on the way. */
#include "kinds.h"

#define WORKERS 4

struct work {
    pthread_mutex_t lock;
    pthread_cond_t there, done;
    int waiting, finished, last, stop, ticks;
};

struct work *work;
pthread_t workers[WORKERS];
pthread_t ticker_thread;
MVEDSUA_REGISTER(work);
MVEDSUA_REGISTER(workers);
MVEDSUA_REGISTER(ticker_thread);

static void *worker(void *argument)
{
    long id = (long)argument;
    long jobs = 0;
    MVEDSUA_REGISTER_LOCAL(jobs);
    mvedsua_mutex_lock(&work->lock);
    while (!work->stop) {
        if (work->waiting == 0) {
            mvedsua_cond_wait(&work->there, &work->lock, "worker");
            continue;
        }
        work->waiting--;
        work->finished++;
        jobs++;
        work->last = VERSION * 1000 + (int)(id >= 100);
        pthread_cond_signal(&work->done);
    }
    mvedsua_mutex_unlock(&work->lock);
    return (void *)(jobs * 10 + VERSION);
}
MVEDSUA_THREAD(worker);

static void *ticker(void *argument)
{
    (void)argument;
    for (;;) {
        mvedsua_update("tick");
        __atomic_add_fetch(&work->ticks, 1, __ATOMIC_SEQ_CST);
        usleep(1000);
        if (__atomic_load_n(&work->stop, __ATOMIC_SEQ_CST)) {
            return NULL;
        }
    }
}
MVEDSUA_THREAD(ticker);

#if VERSION == 2
static int renumber(const void *old_value, void *new_value)
{
    *(long *)new_value = *(const long *)old_value + 100;
    return 0;
}
MVEDSUA_TRANSFORM("worker()", renumber);
#endif

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!mvedsua_updating()) {
        work = calloc(1, sizeof *work);
        pthread_mutex_init(&work->lock, NULL);
        pthread_cond_init(&work->there, NULL);
        pthread_cond_init(&work->done, NULL);
        for (long i = 0; i < WORKERS; i++) {
            mvedsua_thread_create(&workers[i], NULL, worker, (void *)i);
        }
        mvedsua_thread_create(&ticker_thread, NULL, ticker, NULL);
    }
    for (;;) {
        const char *line = next_line("loop");
        if (strcmp(line, "join") == 0) {
            long jobs = 0, version = 0;
            __atomic_store_n(&work->stop, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_lock(&work->lock);
            pthread_cond_broadcast(&work->there);
            pthread_mutex_unlock(&work->lock);
            for (int i = 0; i < WORKERS; i++) {
                void *result;
                pthread_join(workers[i], &result);
                jobs += (long)result / 10;
                version = (long)result % 10;
            }
            pthread_join(ticker_thread, NULL);
            SAY("joined %ld jobs by version %ld", jobs, version);
            continue;
        }
        int before = __atomic_load_n(&work->ticks, __ATOMIC_SEQ_CST);
        pthread_mutex_lock(&work->lock);
        work->waiting += 10;
        pthread_cond_broadcast(&work->there);
        while (work->waiting > 0) {
            pthread_cond_wait(&work->done, &work->lock);
        }
        pthread_mutex_unlock(&work->lock);
        while (__atomic_load_n(&work->ticks, __ATOMIC_SEQ_CST) == before) {
            usleep(100);
        }
        SAY("finished %d last %d", work->finished, work->last);
    }
}
