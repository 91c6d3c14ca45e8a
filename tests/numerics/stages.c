/* Kernels that check how they are run. This text follows that of the runtime; every check returns how many mistakes it saw.
 * `gcc -DALONE -fsanitize=thread` makes a program of it. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IMAGE = 37, SUMS = 13, COUNTS = 501, MOST = 8 /* images */ };

typedef struct {
    long sums[SUMS], counts[COUNTS], images, misplaced;
} seen;

static seen *of_image(const cj_call *call, int array, long n)
{
    return (seen *)(call->arrays[array].data + n * call->arrays[array].batch_step);
}

static long image_units(const cj_call *call)
{
    return call->batch * IMAGE;
}

static long sum_units(const cj_call *call)
{
    return call->batch * SUMS;
}

static long count_units(const cj_call *call)
{
    return call->batch * COUNTS;
}

static long shared_bytes(const cj_call *call)
{
    return image_units(call) * sizeof(long);
}

/* Scratch memory belongs to the run: nobody else writes to it meanwhile. */
static void note_scratch(const cj_call *call, char *scratch, long n, long unit)
{
    volatile long *own = (long *)scratch;
    *own = unit;
    for (int spin = 0; spin < 20; spin++)
        PAUSE();
    if (*own != unit || (uintptr_t)scratch % 64 || (uintptr_t)call->shared % 64)
        of_image(call, 1, n)->misplaced++;
}

static void fill(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        note_scratch(call, scratch, unit / IMAGE, unit);
        ((long *)call->shared)[unit] = unit % IMAGE + *(long *)(call->arrays[0].data + unit / IMAGE * call->arrays[0].batch_step);
    }
}

static void sum(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        note_scratch(call, scratch, unit / SUMS, unit);
        long total = 0;
        for (int n = 0; n < IMAGE; n++)
            total += ((long *)call->shared)[unit / SUMS * IMAGE + n];
        of_image(call, 1, unit / SUMS)->sums[unit % SUMS] = total;
    }
}

static void count(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        note_scratch(call, scratch, unit / COUNTS, unit);
        seen *image = of_image(call, 1, unit / COUNTS);
        image->counts[unit % COUNTS]++;
        if (unit % COUNTS == 0)
            image->images = call->batch;
    }
}

static const cj_kernel checker = {
    .scratch_bytes = sizeof(long),
    .shared_bytes = shared_bytes,
    .num_stages = 3,
    .stages = {{image_units, fill}, {sum_units, sum}, {count_units, count}},
};

/* Two steps: the second reads what the first left in the arena's results. */
int check_stages(long batch, int threads)
{
    static const long added[MOST] = {5, 7, 11, 13, 17, 19, 23, 29};
    seen *made = calloc(batch, sizeof *made);
    char *arrays[] = {(char *)added, (char *)made};
    const cj_place first[] = {{1, 0, sizeof(long)}, {0, 0, sizeof(seen)}}, second[] = {{1, 0, 0}, {2, 0, sizeof(seen)}};
    const cj_step steps[] = {{&checker, first, 2, threads, batch, 0, 0}, {&checker, second, 2, threads, batch, 0, 0}};
    int mistakes = cj_run(steps, 2, arrays, batch * sizeof(seen), threads);
    for (long n = 0; n < batch; n++) {
        mistakes += made[n].misplaced != 0;
        mistakes += made[n].images != batch;
        for (int s = 0; s < SUMS; s++)
            mistakes += made[n].sums[s] != IMAGE * (IMAGE - 1) / 2 + IMAGE * added[0];
        for (int c = 0; c < COUNTS; c++)
            mistakes += made[n].counts[c] != 1;
    }
    free(made);
    return mistakes;
}

static void *sleep_for_ever(void *argument)
{
    for (;;)
        pause();
    return argument;
}

/* A worker that never comes to its share. */
int check_absent_worker(void)
{
    const int present = enter_pool(2);
    pthread_create(&pool.workers[pool.started].thread, NULL, sleep_for_ever, NULL);
    pool.workers[pool.started].number = pool.started;
    pool.started++;
    leave_pool(present);
    int mistakes = 0;
    for (int round = 0; round < 50; round++)
        mistakes += check_stages(1 + round % MOST, pool.started);
    pool.started--;
    return mistakes;
}

static long one_unit_each(const cj_call *call)
{
    return call->batch;
}

static void call_again(const cj_call *call, char *scratch, long first, long end)
{
    (void)scratch;
    for (long unit = first; unit < end; unit++)
        *(long *)(call->arrays[0].data + unit * call->arrays[0].batch_step) = check_stages(2, 4);
}

/* A kernel that runs kernels: they find the pool taken. */
int check_call_within(void)
{
    static const cj_kernel outer = {.num_stages = 1, .stages = {{one_unit_each, call_again}}};
    long mistakes[20];
    char *arrays[] = {(char *)mistakes};
    const cj_place place = {1, 0, sizeof(long)};
    const cj_step step = {&outer, &place, 1, 4, 20, 0, 0};
    int all = cj_run(&step, 1, arrays, 0, 4);
    for (int n = 0; n < 20; n++)
        all += mistakes[n] != 0;
    return all;
}

static void *many_stages(void *threads)
{
    long mistakes = 0;
    for (int round = 0; round < 60; round++)
        mistakes += check_stages(1 + round % MOST, (int)(long)threads);
    return (void *)mistakes;
}

int check_callers_at_once(void)
{
    pthread_t callers[3];
    long mistakes = 0;
    for (long n = 0; n < 3; n++)
        pthread_create(&callers[n], NULL, many_stages, (void *)(n + 2));
    for (int n = 0; n < 3; n++) {
        void *of_one;
        pthread_join(callers[n], &of_one);
        mistakes += (long)of_one;
    }
    return mistakes;
}

/* Children of a process whose pool is busy run kernels, and have workers of their own. */
int check_forks(void)
{
    pthread_t busy;
    pthread_create(&busy, NULL, many_stages, (void *)2L);
    int mistakes = 0;
    for (int n = 0; n < 10; n++) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(10);
            _exit(check_stages(MOST, 3) || check_stages(1, 3) || pool.started != 3);
        }
        int status = 1;
        waitpid(child, &status, 0);
        mistakes += status != 0;
    }
    void *of_parent;
    pthread_join(busy, &of_parent);
    return mistakes + (long)of_parent + check_stages(MOST, 2);
}

static size_t bytes_kept(void)
{
    size_t bytes = 0;
    for (arena *a = arenas.free; a; a = a->next)
        bytes += a->bytes;
    return bytes;
}

/* A large arena is there for the next large request, serves no small ones, and goes when nobody asked for long. */
int check_arenas(void)
{
    const size_t large = 64 << 20;
    leave_arena(take_arena(large));
    int mistakes = bytes_kept() < large;
    arena *again = take_arena(large / 2);
    mistakes += bytes_kept() >= large || again->bytes != large;
    arena *small = take_arena(PAGE);
    mistakes += small->bytes >= large;
    leave_arena(small);
    leave_arena(again);
    for (int n = 0; n < PATIENCE; n++)
        leave_arena(take_arena(PAGE));
    mistakes += bytes_kept() < large;
    leave_arena(take_arena(PAGE));
    return mistakes + (bytes_kept() >= large);
}

int threads_now(int threads)
{
    const int granted = enter_pool(threads);
    leave_pool(granted);
    return granted;
}

#ifdef ALONE
int main(void)
{
    int mistakes = check_absent_worker() + check_call_within() + check_callers_at_once() + check_arenas();
    for (int threads = 1; threads <= 16; threads++)
        for (long batch = 1; batch <= MOST; batch++)
            mistakes += check_stages(batch, threads);
    return mistakes != 0;
}
#endif
