/* A job is a number of units, and each thread's share of it is a run of neighbours, in grains of a few units. A thread
 * takes one grain at a time from the front of its share; one that has none left steals the back half of the fullest
 * other share. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    MAX_THREADS = 1024,
    GRAINS = 8, /* in a thread's share */
};

/* Does units `first` up to `end` of a job. */
typedef void do_units(const void *argument, int thread, long first, long end);

typedef struct {
    do_units *run;
    const void *argument;
    long count, grain; /* units of the job, and of a grain */
} job;

/* A thread. What it needs for a job is in one cache line; 128, because processors fetch lines in pairs. */
typedef struct {
    _Alignas(128) atomic_int state;
    int threads;             /* of the job */
    _Atomic uint64_t grains; /* its share: begin | end << 32 */
    job job;
    _Alignas(128) int number;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} worker;

static struct {
    worker workers[MAX_THREADS]; /* the first stands for the caller */
    int started;                 /* with the caller; 0 before the first use */
    atomic_bool busy;            /* a thread has the pool; others run their jobs alone */
    atomic_int callers;          /* threads that run jobs, the one that has the pool among them */
} pool;

static uint64_t grains(uint32_t begin, uint32_t end)
{
    return begin | (uint64_t)end << 32;
}

static uint32_t begin_of(uint64_t word)
{
    return (uint32_t)word;
}

static uint32_t end_of(uint64_t word)
{
    return word >> 32;
}

static uint32_t length(uint64_t word)
{
    return end_of(word) - begin_of(word);
}

/* `*seen` is what a share is thought to hold; it becomes what it held. */
static int replace(worker *of, uint64_t *seen, uint64_t with)
{
    return atomic_compare_exchange_strong_explicit(&of->grains, seen, with, memory_order_relaxed, memory_order_relaxed);
}

/* Takes the first grain of a thread's share and does it; 0 if there is none. */
static int do_some(worker *self)
{
    uint64_t seen = atomic_load_explicit(&self->grains, memory_order_relaxed);
    while (length(seen)) {
        if (!replace(self, &seen, grains(begin_of(seen) + 1, end_of(seen))))
            continue;
        const job *job = &self->job;
        const long first = begin_of(seen) * job->grain, left = job->count - first;
        job->run(job->argument, self->number, first, first + (left < job->grain ? left : job->grain));
        return 1;
    }
    return 0;
}

/* Moves the back half of the fullest share to this thread's, which is empty; 0 if all are. */
static int steal(worker *self)
{
    for (;;) {
        worker *fullest = NULL;
        uint64_t seen = 0;
        for (int n = 1; n < self->threads; n++) {
            worker *other = &pool.workers[(self->number + n) % self->threads];
            const uint64_t theirs = atomic_load_explicit(&other->grains, memory_order_relaxed);
            if (length(theirs) > length(seen)) {
                fullest = other;
                seen = theirs;
            }
        }
        if (!fullest)
            return 0;
        const uint32_t end = end_of(seen), middle = end - (length(seen) + 1) / 2;
        if (replace(fullest, &seen, grains(begin_of(seen), middle))) {
            atomic_store_explicit(&self->grains, grains(middle, end), memory_order_relaxed);
            return 1;
        }
    }
}

static void do_job(worker *self)
{
    while (do_some(self) || steal(self))
        ;
}
