/* The runtime of compiled kernels. They do not link to it: it calls them, as call.h says.
 *
 * Every exported function may be called from any thread. */
#define _GNU_SOURCE
#include "shares.c"
#include "pool.c"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "call.h"
#include "packing.c"

/* ----------------------------------------------------------------- arenas */

enum {
    PAGE = 4096,
    SMALL_ARENA = 16 << 20, /* bytes; one of these serves any request that it is long enough for */
    WASTE = 4,              /* a larger one only those for at least this part of it */
    PATIENCE = 100,         /* requests: an arena that served none of so many is freed */
    HUGE_PAGE = 2 << 20,
    KEPT_BYTES = 256 << 20, /* of memory that the process freed */
    MOST_SHARED = 8 << 20, /* bytes, of all threads, of a kernel that may do images one after the other */
};

typedef struct arena {
    struct arena *next;
    size_t bytes; /* of the memory, the page of this header included */
    long left_at; /* how many requests there had been when it was left */
} arena;

static struct {
    pthread_mutex_t lock;
    arena *free;
    long requests;
} arenas = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int serves(const arena *a, size_t bytes)
{
    return a->bytes >= bytes && (a->bytes <= SMALL_ARENA || a->bytes / WASTE <= bytes);
}

/* From the system, where it goes back to. Pages of the larger size are had at a fifth of the time. */
static arena *new_arena(size_t bytes)
{
    arena *made = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE)
        madvise(made, bytes, MADV_HUGEPAGE);
#endif
    made->bytes = bytes;
    return made;
}

/* At least `bytes` of memory, with its header; NULL if there is none. */
static arena *take_arena(size_t bytes)
{
    pthread_mutex_lock(&arenas.lock);
    arenas.requests++;
    arena **at = &arenas.free, *found;
    while (*at && !serves(*at, bytes))
        at = &(*at)->next;
    if ((found = *at))
        *at = found->next;
    pthread_mutex_unlock(&arenas.lock);
    return found ? found : new_arena(bytes);
}

static void leave_arena(arena *used)
{
    pthread_mutex_lock(&arenas.lock);
    used->next = arenas.free;
    used->left_at = arenas.requests;
    arenas.free = used;
    arena **at = &arenas.free; /* the latest use first */
    while (*at && arenas.requests - (*at)->left_at <= PATIENCE)
        at = &(*at)->next;
    arena *idle = *at;
    *at = NULL;
    pthread_mutex_unlock(&arenas.lock);
    while (idle) {
        arena *next = idle->next;
        munmap(idle, idle->bytes);
        idle = next;
    }
}

static void lock_arenas(void)
{
    pthread_mutex_lock(&arenas.lock);
}

static void unlock_arenas(void)
{
    pthread_mutex_unlock(&arenas.lock);
}

__attribute__((constructor)) static void keep_arenas_whole_in_forks(void)
{
    pthread_atfork(lock_arenas, unlock_arenas, unlock_arenas);
}

/* The results of a network's calls are as large as those of the calls before. By itself, glibc gives memory of this
 * size back to the system, and its pages are had again at 2 GB/s. */
#ifdef __GLIBC__
__attribute__((constructor)) static void keep_freed_memory(void)
{
    if (getenv("MALLOC_MMAP_THRESHOLD_") || getenv("MALLOC_TRIM_THRESHOLD_") || getenv("GLIBC_TUNABLES"))
        return; /* as the user wants it */
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}
#endif

/* --------------------------------------------------------------- stretches */

typedef struct {
    int base; /* 0: the arena's results; 1, 2, ...: the arrays given to cj_run; -1: offset is an address */
    long offset;
    long batch_step;
} cj_place;

typedef struct {
    const cj_kernel *kernel;
    const cj_place *places; /* of the arrays of its call, in the same order */
    int num_places;
    int threads; /* more of them would cost more than they save */
    long batch, in_extent, out_extent;
} cj_step;

/* Bytes of memory that steps need, the most that any of them does. */
typedef struct {
    long results; /* of all steps, which only they see */
    long shared;
    long scratch; /* of each thread */
} needs;

static long larger(long a, long b)
{
    return a > b ? a : b;
}

static long least(long a, long b)
{
    return a < b ? a : b;
}

static cj_call call_of(const cj_step *step)
{
    return (cj_call){.batch = step->batch, .in_extent = step->in_extent, .out_extent = step->out_extent};
}

/* As many images as share little memory, at least one. */
static long images_of_call(const cj_kernel *kernel, cj_call call)
{
    while (kernel->is_per_image && call.batch > 1 && kernel->shared_bytes(&call) > MOST_SHARED)
        call.batch = (call.batch + 1) / 2;
    return call.batch;
}

static needs needs_of(const cj_step *steps, int num_steps, long results)
{
    needs most = {.results = results};
    for (const cj_step *step = steps; step < steps + num_steps; step++) {
        cj_call call = call_of(step);
        call.batch = images_of_call(step->kernel, call);
        most.scratch = larger(most.scratch, step->kernel->scratch_bytes);
        if (step->kernel->shared_bytes)
            most.shared = larger(most.shared, step->kernel->shared_bytes(&call));
    }
    return most;
}

typedef struct {
    char *results, *shared, *scratch;
    long scratch_step; /* between threads */
} memory;

static long aligned(long bytes, long alignment)
{
    return (bytes + alignment - 1) / alignment * alignment;
}

/* Threads' scratch memories do not begin at the same place of a page, so that they use different sets of a cache. */
static long scratch_step(const needs *needs)
{
    return needs->scratch ? aligned(needs->scratch, PAGE) + 128 : 0;
}

static long bytes_of(const needs *needs, int threads)
{
    return aligned(needs->results, PAGE) + aligned(needs->shared, PAGE) + threads * scratch_step(needs);
}

static memory lay_out(const arena *a, const needs *needs)
{
    char *const results = (char *)a + PAGE, *const shared = results + aligned(needs->results, PAGE);
    return (memory){results, shared, shared + aligned(needs->shared, PAGE), scratch_step(needs)};
}

typedef struct {
    const cj_stage *stage;
    cj_call call;
    const memory *memory;
} stage_job;

static void run_stage(const void *argument, int thread, long first, long end)
{
    const stage_job *job = argument;
    job->stage->run(&job->call, job->memory->scratch + thread * job->memory->scratch_step, first, end);
}

static void run_kernel(const cj_kernel *kernel, const cj_call *call, const memory *memory, int threads)
{
    for (int n = 0; n < kernel->num_stages; n++) {
        const stage_job job = {&kernel->stages[n], *call, memory};
        run_units(run_stage, &job, job.stage->units(call), threads);
    }
}

static char *address_of(const cj_place *place, char *const *arrays, const memory *memory)
{
    if (place->base < 0)
        return (char *)place->offset;
    return (place->base ? arrays[place->base - 1] : memory->results) + place->offset;
}

static void run_step(const cj_step *step, char *const *arrays, const memory *memory, int threads)
{
    cj_array placed[step->num_places];
    for (int n = 0; n < step->num_places; n++) {
        const cj_place *place = &step->places[n];
        placed[n] = (cj_array){address_of(place, arrays, memory), place->batch_step};
    }
    cj_call call = call_of(step);
    call.arrays = placed;
    call.shared = memory->shared;
    const long images = images_of_call(step->kernel, call);
    for (long first = 0; first < step->batch; first += images) {
        call.batch = least(images, step->batch - first);
        run_kernel(step->kernel, &call, memory, least(threads, step->threads));
        for (int n = 0; n < step->num_places; n++)
            placed[n].data += images * placed[n].batch_step;
    }
}

/* Runs kernels one after the other, on up to `threads` threads; `result_bytes` of results are seen only by them.
 * Returns 0, or 1 if there is no memory for it. */
int cj_run(const cj_step *steps, int num_steps, char *const *arrays, long result_bytes, int threads)
{
    const int granted = enter_pool(threads);
    const needs needs = needs_of(steps, num_steps, result_bytes);
    arena *own = take_arena(PAGE + bytes_of(&needs, granted));
    if (own) {
        const memory memory = lay_out(own, &needs);
        for (const cj_step *step = steps; step < steps + num_steps; step++)
            run_step(step, arrays, &memory, granted);
        leave_arena(own);
    }
    leave_pool(granted);
    return own == NULL;
}

/* Bytes of memory that such a run takes beside the arrays that it is given. */
long cj_memory(const cj_step *steps, int num_steps, long result_bytes, int threads)
{
    const needs needs = needs_of(steps, num_steps, result_bytes);
    return bytes_of(&needs, threads);
}
