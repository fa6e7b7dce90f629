/* Jobs, whose types change without a trace in the layout: only debug information tells. */
#include <stdio.h>
#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))

enum state {
    IDLE,
#ifdef RENUMBERED
    WAITING,
#endif
    BUSY,
    DONE,
#ifdef ANOTHER
    LOST,
#endif
};

struct job {
    struct job *next;
#ifdef SIGNED
    int when;
#else
    unsigned when;
#endif
    enum state state;
    long cost;
};

static struct job *jobs;
static long spent;
NOINLINE struct job *job_new(int when, long cost) {
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        abort();
    job->when = when;
    job->cost = cost;
    job->next = jobs;
    jobs = job;
    return job;
}

#ifdef WIDER
NOINLINE long job_late(struct job *job, long now) {
#else
NOINLINE long job_late(struct job *job, int now) {
#endif
    if (job->when < 1000)
        spent += job->cost;
#ifdef MENDED
    if (job->cost < 0)
        return 0;
#endif
    return now - (long)job->when;
}

NOINLINE void job_step(struct job *job) {
    if (job->state == BUSY) {
        spent += job->cost;
        puts("done");
        job->state = DONE;
    } else if (job->state == IDLE) {
        puts("busy");
        job->state = BUSY;
    }
}

NOINLINE long sum(void) {
    long all = spent;
    for (struct job *job = jobs; job; job = job->next)
        all += job->cost;
    return all;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct job *job = job_new(atoi(argv[i]), i);
        job_step(job);
        printf("%ld\n", job_late(job, argc));
    }
    printf("%ld\n", sum());
    return 0;
}
