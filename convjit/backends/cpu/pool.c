/* Threads. The caller offers a job to the workers, and works too. When it finds nothing more to take, it withdraws the
 * job: it waits for the workers that are at it, but not for those that never came, which another process may keep from
 * running.
 *
 * Every function here may be called from any thread. */
#include <sched.h>
#include <signal.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("isb")
#else
#define PAUSE() ((void)0)
#endif

enum {
    SPIN_NANOSECONDS = 1000000,    /* before a worker sleeps: a stretch has its next job ready within it */
    UNASKED_NANOSECONDS = 1000000, /* before it lets others have its CPU: less than the system would let it run */
    SPINS_BETWEEN_LOOKS = 8,       /* at the clock, or at who else wants this CPU */
};

/* What a worker is at. The caller offers it a job, and withdraws one that it is not inside of. */
enum { IDLE, PARKED, OFFERED, INSIDE };

/* ------------------------------------------------------------- the workers */

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int accept(worker *self)
{
    int offered = OFFERED;
    return atomic_load_explicit(&self->state, memory_order_relaxed) == OFFERED &&
           atomic_compare_exchange_strong_explicit(&self->state, &offered, INSIDE, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void sleep_until_offered(worker *self)
{
    int idle = IDLE;
    pthread_mutex_lock(&self->lock);
    if (atomic_compare_exchange_strong(&self->state, &idle, PARKED))
        while (atomic_load(&self->state) == PARKED)
            pthread_cond_wait(&self->wake, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static void wait_for_job(worker *self, int64_t now)
{
    for (;; now = nanoseconds()) {
        const int64_t until = now + SPIN_NANOSECONDS;
        do {
            for (int spin = 0; spin < SPINS_BETWEEN_LOOKS; spin++) {
                if (accept(self))
                    return;
                PAUSE();
            }
            sched_yield(); /* to MLX's threads, which otherwise take 50 us to be woken */
        } while (nanoseconds() < until);
        sleep_until_offered(self);
    }
}

/* Where another process wants this CPU too, the system stops the worker sooner or later, and if it is at a job then,
 * the caller waits for it. So it lets the others go first now and then, when it is at none. */
static void *work(void *argument)
{
    worker *self = argument;
    for (;;) {
        int64_t now = nanoseconds();
        for (const int64_t until = now + UNASKED_NANOSECONDS; now < until; now = nanoseconds()) {
            wait_for_job(self, now);
            do_job(self);
            atomic_store_explicit(&self->state, IDLE, memory_order_release);
        }
        sched_yield();
    }
    return NULL;
}

static void offer(worker *w)
{
    if (atomic_exchange_explicit(&w->state, OFFERED, memory_order_acq_rel) != PARKED)
        return;
    pthread_mutex_lock(&w->lock);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

/* Afterwards the worker is not at the job, and will not be. */
static void withdraw(worker *w)
{
    int seen = atomic_load_explicit(&w->state, memory_order_acquire);
    if (seen == OFFERED && atomic_compare_exchange_strong_explicit(&w->state, &seen, IDLE, memory_order_acquire,
                                                                   memory_order_acquire))
        return;
    for (int spin = 1; atomic_load_explicit(&w->state, memory_order_acquire) == INSIDE; spin++) {
        PAUSE();
        if (spin % SPINS_BETWEEN_LOOKS == 0)
            sched_yield();
    }
}

/* Up to `threads` threads with the caller, if the system has so many. */
static void start_workers(int threads)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* workers inherit it: signals go to Python's threads */
    if (!pool.started)
        pool.started = 1;
    while (pool.started < threads && pool.started < MAX_THREADS) {
        worker *w = &pool.workers[pool.started];
        atomic_init(&w->state, IDLE);
        w->number = pool.started;
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        if (pthread_create(&w->thread, NULL, work, w))
            break;
        pthread_detach(w->thread);
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* -------------------------------------------------------------- their CPUs */

#ifdef __linux__

static struct {
    cpu_set_t allowed; /* to the caller */
    int at_start;      /* how many, when the workers were started */
    int caller;        /* the CPU that the workers are kept off */
} cpus;

/* How many threads the CPUs that the calling thread may use are good for. More than there are may have been asked for,
 * but where some were taken from this process since, it keeps to those that are left. */
static int threads_of_cpus(int threads, int just_started)
{
    cpu_set_t allowed;
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed))
        return threads;
    const int count = CPU_COUNT(&allowed);
    if (just_started)
        cpus.at_start = count;
    if (just_started || !CPU_EQUAL(&allowed, &cpus.allowed)) {
        cpus.allowed = allowed;
        cpus.caller = -1;
    }
    return count < cpus.at_start && count < threads ? count : threads;
}

/* Two threads of one job on one CPU would take twice the time, and the scheduler is slow to part them. */
static void keep_workers_off_this_cpu(void)
{
    const int cpu = sched_getcpu();
    if (cpu == cpus.caller || cpu < 0)
        return;
    cpus.caller = cpu;
    cpu_set_t others = cpus.allowed;
    if (CPU_COUNT(&others) > 1)
        CPU_CLR(cpu, &others);
    for (int number = 1; number < pool.started; number++)
        pthread_setaffinity_np(pool.workers[number].thread, sizeof others, &others);
}

#else

static int threads_of_cpus(int threads, int just_started)
{
    (void)just_started;
    return threads;
}

static void keep_workers_off_this_cpu(void)
{
}

#endif

/* ----------------------------------------------------------------- its use */

/* How many threads, up to `threads`, the caller's jobs may have until it leaves the pool. Where another has the pool,
 * it runs its jobs alone. */
static int enter_pool(int threads)
{
    atomic_fetch_add_explicit(&pool.callers, 1, memory_order_relaxed);
    if (threads <= 1 || atomic_exchange_explicit(&pool.busy, 1, memory_order_acquire))
        return 1;
    const int more = pool.started < threads;
    if (more)
        start_workers(threads);
    threads = threads_of_cpus(threads < pool.started ? threads : pool.started, more);
    if (threads <= 1)
        atomic_store_explicit(&pool.busy, 0, memory_order_release);
    return threads;
}

/* `threads` as `enter_pool` told. */
static void leave_pool(int threads)
{
    if (threads > 1)
        atomic_store_explicit(&pool.busy, 0, memory_order_release);
    atomic_fetch_sub_explicit(&pool.callers, 1, memory_order_relaxed);
}

/* Does `count` units on up to `threads` threads, at most as many as `enter_pool` told. */
static void run_units(do_units *run, const void *argument, long count, int threads)
{
    if (threads > 1) /* each other caller has a CPU */
        threads -= atomic_load_explicit(&pool.callers, memory_order_relaxed) - 1;
    if (threads > count)
        threads = count;
    if (threads <= 1) {
        run(argument, 0, 0, count);
        return;
    }
    keep_workers_off_this_cpu();
    const long share = count / threads, grain = share > GRAINS ? share / GRAINS : 1;
    const uint64_t all = (count + grain - 1) / grain;
    for (int n = 0; n < threads; n++) {
        worker *w = &pool.workers[n];
        w->threads = threads;
        w->job = (job){run, argument, count, grain};
        atomic_store_explicit(&w->grains, grains(all * n / threads, all * (n + 1) / threads), memory_order_relaxed);
    }
    for (int n = 1; n < threads; n++)
        offer(&pool.workers[n]);
    do_job(&pool.workers[0]);
    for (int n = 1; n < threads; n++)
        withdraw(&pool.workers[n]);
}

/* ------------------------------------------------------------------- fork */

/* No worker survives in a child, nor any other caller: its first job starts new ones. */
static void forget_pool(void)
{
    pool.started = 0;
    atomic_store(&pool.callers, 0);
    atomic_store(&pool.busy, 0);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget_pool);
}
