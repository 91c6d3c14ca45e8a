/* The runtime of compiled kernels: threads, arenas, weight packing.
 *
 * Kernels do not link to it: they are called through `cj_kernel` pointers, with the structures below, which
 * templates/cpu/call.h repeats. Every function here may be called from any thread. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("isb")
#else
#define PAUSE() ((void)0)
#endif

enum {
    MAX_THREADS = 256,
    SPINS_BEFORE_PARKING = 20000, /* about a millisecond: a stretch dispatches its next kernel within it */
    SPINS_BEFORE_YIELDING = 2000,
    ARENA_ALIGNMENT = 4096,
};

typedef void task(const void *argument, int thread, int threads);

/* ---------------------------------------------------------------- threads */

typedef struct {
    _Alignas(64) atomic_uint jobs; /* how many this worker was given; it runs one each time this grows */
    atomic_bool parked;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int number;
} worker;

static struct {
    worker workers[MAX_THREADS]; /* entry 0 stands for the caller and is not used */
    int threads;                 /* with the caller; 0 before the first use */
    int last_cpu;                /* of the caller: workers are kept off it */
    atomic_flag busy;            /* a thread is running a task; others then run theirs alone */
    task *run;
    const void *argument;
    int run_threads;
    _Alignas(64) atomic_int running; /* workers that have not finished the present task */
} pool = {.last_cpu = -1, .busy = ATOMIC_FLAG_INIT};

static void wait_for_job(worker *self, unsigned seen)
{
    for (int spin = 0; spin < SPINS_BEFORE_PARKING; spin++) {
        if (atomic_load_explicit(&self->jobs, memory_order_acquire) != seen)
            return;
        PAUSE();
    }
    pthread_mutex_lock(&self->lock);
    atomic_store(&self->parked, 1); /* before the check: give_job looks at `parked` after it has counted up */
    while (atomic_load(&self->jobs) == seen)
        pthread_cond_wait(&self->wake, &self->lock);
    atomic_store(&self->parked, 0);
    pthread_mutex_unlock(&self->lock);
}

static void *work(void *argument)
{
    worker *self = argument;
    for (unsigned seen = 0;; seen++) {
        wait_for_job(self, seen);
        pool.run(pool.argument, self->number, pool.run_threads);
        atomic_fetch_sub_explicit(&pool.running, 1, memory_order_release);
    }
    return NULL;
}

static void give_job(worker *w)
{
    atomic_fetch_add(&w->jobs, 1);
    if (!atomic_load(&w->parked))
        return;
    pthread_mutex_lock(&w->lock);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

static void start_workers(int threads)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* workers inherit it: signals go to Python's threads */
    pool.last_cpu = -1;
    pool.threads = 1;
    for (int number = 1; number < threads && number < MAX_THREADS; number++) {
        worker *w = &pool.workers[number];
        memset(w, 0, sizeof *w);
        w->number = number;
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        if (pthread_create(&w->thread, NULL, work, w))
            break; /* the system has no more threads: those that run are enough */
        pthread_detach(w->thread);
        pool.threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Two threads of one task on one CPU would take twice the time, and the scheduler is slow to part them. */
static void keep_workers_off_this_cpu(void)
{
#ifdef __linux__
    int cpu = sched_getcpu();
    cpu_set_t allowed;
    if (cpu == pool.last_cpu || cpu < 0 || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    pool.last_cpu = cpu;
    if (CPU_COUNT(&allowed) < 2)
        return;
    CPU_CLR(cpu, &allowed);
    for (int number = 1; number < pool.threads; number++)
        pthread_setaffinity_np(pool.workers[number].thread, sizeof allowed, &allowed);
#endif
}

static void run_on(task *run, const void *argument, int threads)
{
    if (threads > pool.threads)
        threads = pool.threads;
    if (threads <= 1) {
        run(argument, 0, 1);
        return;
    }
    keep_workers_off_this_cpu();
    pool.run = run;
    pool.argument = argument;
    pool.run_threads = threads;
    atomic_store_explicit(&pool.running, threads - 1, memory_order_relaxed);
    for (int number = 1; number < threads; number++)
        give_job(&pool.workers[number]);
    run(argument, 0, threads);
    for (int spin = 0; atomic_load_explicit(&pool.running, memory_order_acquire); spin++) {
        PAUSE();
        if (spin % SPINS_BEFORE_YIELDING == SPINS_BEFORE_YIELDING - 1)
            sched_yield();
    }
}

static int take_pool(int threads)
{
    if (threads <= 1 || atomic_flag_test_and_set_explicit(&pool.busy, memory_order_acquire))
        return 0;
    if (!pool.threads)
        start_workers(threads);
    return 1;
}

static void leave_pool(void)
{
    atomic_flag_clear_explicit(&pool.busy, memory_order_release);
}

/* ----------------------------------------------------------------- arenas */

typedef struct arena {
    struct arena *next;
    size_t bytes; /* of the memory that follows this header's page */
} arena;

static arena *free_arenas;
static pthread_mutex_t arena_lock = PTHREAD_MUTEX_INITIALIZER;

/* At least `bytes` of memory, NULL if there is none. As many arenas exist as stretches ever ran at once, and each
 * grows to the largest stretch it served. */
static arena *take_arena(size_t bytes)
{
    pthread_mutex_lock(&arena_lock);
    arena *found = free_arenas;
    if (found)
        free_arenas = found->next;
    pthread_mutex_unlock(&arena_lock);
    if (found && found->bytes >= bytes)
        return found;
    free(found);
    void *memory;
    if (posix_memalign(&memory, ARENA_ALIGNMENT, ARENA_ALIGNMENT + bytes))
        return NULL;
    found = memory;
    found->bytes = bytes;
    return found;
}

static void leave_arena(arena *used)
{
    pthread_mutex_lock(&arena_lock);
    used->next = free_arenas;
    free_arenas = used;
    pthread_mutex_unlock(&arena_lock);
}

/* ------------------------------------------------------------------- fork */

static void before_fork(void)
{
    pthread_mutex_lock(&arena_lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&arena_lock);
}

/* No worker survives in a child: its first task starts new ones. */
static void after_fork_in_child(void)
{
    pthread_mutex_unlock(&arena_lock);
    pool.threads = 0;
    leave_pool();
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* --------------------------------------------------------------- stretches */

typedef struct {
    char *data;
    long batch_step; /* bytes from one image to the next; 0 where an extra is broadcast along the batch */
} cj_array;

typedef struct {
    const cj_array *arrays; /* the input, the packed weight, the extras, the results */
    long batch;
    char *scratch; /* `scratch_bytes` of the kernel for each thread */
} cj_call;

typedef void cj_kernel(const cj_call *call, int thread, int threads);

typedef struct {
    int base; /* 0: the arena; 1, 2, ...: the arrays given to cj_run */
    long offset;
    long batch_step;
} cj_place;

typedef struct {
    cj_kernel *kernel;
    const cj_place *places; /* of the arrays of its call, in the same order */
    int num_places;
    int threads; /* more of them would cost more than they save */
    long batch;
} cj_step;

typedef struct {
    cj_kernel *kernel;
    cj_call call;
} kernel_job;

static void run_kernel(const void *argument, int thread, int threads)
{
    const kernel_job *job = argument;
    job->kernel(&job->call, thread, threads);
}

static void run_step(const cj_step *step, char *const *arrays, char *arena, char *scratch, int threads)
{
    cj_array placed[step->num_places];
    for (int n = 0; n < step->num_places; n++) {
        const cj_place *place = &step->places[n];
        char *base = place->base ? arrays[place->base - 1] : arena;
        placed[n] = (cj_array){base + place->offset, place->batch_step};
    }
    kernel_job job = {step->kernel, {placed, step->batch, scratch}};
    run_on(run_kernel, &job, threads < step->threads ? threads : step->threads);
}

/* Runs kernels one after the other. The arena holds `arena_bytes` of results that only they see, then
 * `scratch_bytes` for each of up to `threads` threads. Returns 0, or 1 if there is no memory for it. */
int cj_run(const cj_step *steps, int num_steps, char *const *arrays, long arena_bytes, long scratch_bytes, int threads)
{
    int shared = take_pool(threads);
    threads = shared ? pool.threads : 1;
    arena *own = take_arena(arena_bytes + threads * scratch_bytes);
    if (own) {
        char *memory = (char *)own + ARENA_ALIGNMENT;
        for (const cj_step *step = steps; step < steps + num_steps; step++)
            run_step(step, arrays, memory, memory + arena_bytes, threads);
        leave_arena(own);
    }
    if (shared)
        leave_pool();
    return own == NULL;
}

/* ---------------------------------------------------------------- packing */

typedef struct {
    const float *weight; /* [groups * group_outputs][kernel_taps][channels] */
    float *packed;       /* [phase][group][block][tap of the phase][channels][block_width] */
    const int *taps;     /* where each tap of each phase lies in the kernel */
    const int *phase_taps;
    int phases, kernel_taps, channels, groups, group_outputs, block_width;
    int last_width; /* of the last block of a group, which may be narrower; its missing outputs are zeros */
} cj_packing;

enum { TRANSPOSED_AT_ONCE = 16 };

/* One tap of one block: transposes [outputs][channels] to [channels][width]. */
static void pack_tap(const cj_packing *p, const float *from, float *to, int outputs, int width)
{
    long output_step = (long)p->kernel_taps * p->channels;
    if (outputs < width)
        memset(to, 0, sizeof(float) * p->channels * width);
    for (int first = 0; first < p->channels; first += TRANSPOSED_AT_ONCE) {
        int count = p->channels - first < TRANSPOSED_AT_ONCE ? p->channels - first : TRANSPOSED_AT_ONCE;
        for (int o = 0; o < outputs; o++)
            for (int c = first; c < first + count; c++)
                to[(long)c * width + o] = from[o * output_step + c];
    }
}

static void pack_share(const void *argument, int thread, int threads)
{
    const cj_packing *p = argument;
    long blocks = (p->group_outputs + p->block_width - 1) / p->block_width, total = 0, item = 0;
    for (int phase = 0; phase < p->phases; phase++)
        total += p->groups * blocks * p->phase_taps[phase];
    long first = total * thread / threads, end = total * (thread + 1) / threads;

    float *to = p->packed;
    const int *taps = p->taps;
    for (int phase = 0; phase < p->phases; taps += p->phase_taps[phase++])
        for (int group = 0; group < p->groups; group++)
            for (int o = 0; o < p->group_outputs; o += p->block_width) {
                int left = p->group_outputs - o, last = left <= p->block_width;
                int width = last ? p->last_width : p->block_width;
                const float *from = p->weight + ((long)group * p->group_outputs + o) * p->kernel_taps * p->channels;
                for (int tap = 0; tap < p->phase_taps[phase]; tap++, item++, to += (long)p->channels * width)
                    if (first <= item && item < end)
                        pack_tap(p, from + (long)taps[tap] * p->channels, to, last ? left : width, width);
            }
}

void cj_pack(const cj_packing *packing, int threads)
{
    int shared = take_pool(threads);
    run_on(pack_share, packing, shared ? threads : 1);
    if (shared)
        leave_pool();
}

/* Are these words of memory what they were? Python asks it about the weights and modules of a program at every call;
 * loads that do not wait for each other find out much faster than a loop in Python. */
int cj_same_words(const uint64_t *const *addresses, const uint64_t *expected, int count)
{
    uint64_t difference = 0;
    for (int i = 0; i < count; i++)
        difference |= *addresses[i] ^ expected[i];
    return difference == 0;
}
