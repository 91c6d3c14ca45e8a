/* Normalises 40 channels of f32 of 8 groups over the pixels of an image.
 *
 * The first stage takes the mean and the squares around it of each channel of a block of pixels, the second joins blocks, then
 * channels, always in the same order and in double precision (Chan, Golub and LeVeque 1979), the third normalises.
 * A mean is two floats: the sum of deviations from a rounded mean tells what is left of it.
 */
/* How the runtime calls a kernel. */
typedef struct {
    char *data;
    long batch_step; /* bytes from one image to the next; 0 for what all images share, as most often the weight */
} cj_array;

typedef struct {
    const cj_array *arrays; /* the input, the packed weight, the extras, the results */
    long batch;             /* images of this call */
    long in_extent, out_extent; /* of the outermost axis, of input and output: a kernel serves any that its tile fits */
    char *shared;           /* what a stage leaves for the next; 64-byte aligned */
} cj_call;

/* One step of a kernel, in units that any thread may take: none depends on another of its stage. A thread runs units
 * `first` up to `end`, which lie side by side. `scratch` is its own until `run` returns. */
typedef struct {
    long (*units)(const cj_call *call);
    void (*run)(const cj_call *call, char *scratch, long first, long end);
} cj_stage;

/* Stages one after the other: all units of one are finished before the next begins. */
typedef struct {
    long scratch_bytes;  /* of each thread */
    long (*shared_bytes)(const cj_call *call); /* of all threads; NULL: none */
    long is_per_image;   /* may images be done in several calls, so that those of one share little memory? */
    long num_stages;
    cj_stage stages[3];
} cj_kernel;

/* Vectors of 16 floats, in the vector extension of gcc and clang. */
enum { LANES = 16 };
typedef float vec __attribute__((vector_size(64)));
typedef int mask __attribute__((vector_size(64))); /* 0 or -1 in each lane, or integers */
typedef float unaligned_vec __attribute__((vector_size(64), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

INLINE vec splat(float value)
{
    return value - (vec){0}; /* not `+`, which would turn -0 into 0 */
}

INLINE mask splat_mask(int value)
{
    return value - (mask){0};
}

/* Lane by lane, of vectors or of masks. */
#define select(which, yes, no) ((__typeof__(yes))(((which) & (mask)(yes)) | (~(which) & (mask)(no))))

#if 16 == 8 && defined(__AVX2__)
INLINE mask first_lanes(int count)
{
    return (mask){ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 } < count;
}
#endif

/* The first `count` of a vector's lanes, a literal: the others are never touched in memory. Through memory of their own,
 * by memcpy, a load would wait for shorter stores. */
INLINE vec load_f32(const float *from, int count)
{
    if (count == LANES)
        return *(const unaligned_vec *)from;
#if 16 == 16 && defined(__AVX512F__)
    return __builtin_ia32_loadups512_mask(from, (vec){0}, (1 << count) - 1);
#elif 16 == 8 && defined(__AVX2__)
    return __builtin_ia32_maskloadps256((const vec *)from, first_lanes(count));
#else
    vec v = {0};
    UNROLL for (int lane = 0; lane < LANES; lane++)
        if (lane < count)
            v[lane] = from[lane];
    return v;
#endif
}

INLINE vec splat_f32(const float *from)
{
    return splat(*from);
}

INLINE void store_f32(float *to, vec v, int count)
{
    if (count == LANES) {
        *(unaligned_vec *)to = v;
        return;
    }
#if 16 == 16 && defined(__AVX512F__)
    __builtin_ia32_storeups512_mask(to, v, (1 << count) - 1);
#elif 16 == 8 && defined(__AVX2__)
    __builtin_ia32_maskstoreps256((vec *)to, first_lanes(count), v);
#else
    UNROLL for (int lane = 0; lane < LANES; lane++)
        if (lane < count)
            to[lane] = v[lane];
#endif
}

typedef float element;

enum {
    CHANNELS = 40,
    ROW_BLOCK = 256, /* pixels of a unit */
    GROUP = 5, /* channels that have statistics together */
    APART = 1, /* from one of them to the next */
    WIDTH = 40, /* channels of a unit of the second stage: whole groups */
    VECTORS = 4,
};

INLINE long least(long a, long b)
{
    return a < b ? a : b;
}

/* Where a row begins in each array. */
typedef struct {
    const element *x;
    const float *extra0;
    const float *extra1;
    float *result0;
} row;

INLINE row row_at(const cj_array *arrays, long number)
{
    return (row){
        .x = (const element *)arrays[0].data + number * CHANNELS,
        .extra0 = (const float *)arrays[1].data + 0,
        .extra1 = (const float *)arrays[2].data + 0,
        .result0 = (float *)arrays[3].data + number * CHANNELS,
    };
}

/* The epilogue of `count` channels from `c` on. */
INLINE void finish(const row *of, vec normalised, long c, int count)
{
    const vec e0 = load_f32(of->extra0 + c, count);
    const vec e1 = load_f32(of->extra1 + c, count);
    const vec v0 = normalised * e0;
    const vec v1 = v0 + e1;
    store_f32(of->result0 + c, v1, count);
}

INLINE float reciprocal_root(double variance)
{
    return 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + 1e-05); /* NaN stays what it is */
}

/* Of each channel of a block of pixels: the mean, in two parts, and the squares around it. */
typedef struct {
    float mean[CHANNELS], rest[CHANNELS], squares[CHANNELS];
} part;

/* How to normalise each channel of an image. */
typedef struct {
    float mean[CHANNELS], rest[CHANNELS], scale[CHANNELS];
} statistics;

static long blocks(const cj_call *call)
{
    return (call->in_extent + ROW_BLOCK - 1) / ROW_BLOCK;
}

static statistics *statistics_of(const cj_call *call, long image)
{
    return (statistics *)call->shared + image;
}

static part *parts_of(const cj_call *call, long image)
{
    return (part *)statistics_of(call, call->batch) + image * blocks(call);
}

/* Pixels of a block of an image. */
static long pixels_of(const cj_call *call, long block)
{
    return least(ROW_BLOCK, call->in_extent - block * ROW_BLOCK);
}

static long shared_bytes(const cj_call *call)
{
    return call->batch * (sizeof(statistics) + blocks(call) * sizeof(part));
}

static long units(const cj_call *call)
{
    return call->batch * blocks(call);
}

/* Deviations of some vectors of channels, and their squares. */
typedef struct {
    vec deviations[VECTORS], squares[VECTORS];
} sums;

INLINE void add(sums *to, const element *x, const vec *from, int vectors, int count)
{
    UNROLL for (int v = 0; v < vectors; v++) {
        const vec deviation = load_f32(x + v * LANES, count) - from[v];
        to->deviations[v] += deviation;
        to->squares[v] += deviation * deviation;
    }
}

/* Even and odd pixels have sums of their own: an addition waits for the one before. */
INLINE sums sums_of(const element *x, long pixels, const vec *from, int vectors, int count)
{
    sums even = {0}, odd = {0};
    long pixel = 0;
    for (; pixel + 1 < pixels; pixel += 2) {
        add(&even, x + pixel * CHANNELS, from, vectors, count);
        add(&odd, x + (pixel + 1) * CHANNELS, from, vectors, count);
    }
    if (pixel < pixels)
        add(&even, x + pixel * CHANNELS, from, vectors, count);
    UNROLL for (int v = 0; v < vectors; v++) {
        even.deviations[v] += odd.deviations[v];
        even.squares[v] += odd.squares[v];
    }
    return even;
}

/* `vectors` vectors of channels from `c` on; of the last one, `count` lanes. */
INLINE void take(const element *x, long pixels, part *to, long c, int vectors, int count)
{
    vec mean[VECTORS] = {0};
    const sums whole = sums_of(x + c, pixels, mean, vectors, count);
    UNROLL for (int v = 0; v < vectors; v++)
        mean[v] = whole.deviations[v] / splat(pixels);
    const sums around = sums_of(x + c, pixels, mean, vectors, count);
    UNROLL for (int v = 0; v < vectors; v++) {
        const vec rest = around.deviations[v] / splat(pixels);
        store_f32(to->mean + c + v * LANES, mean[v], count);
        store_f32(to->rest + c + v * LANES, rest, count);
        store_f32(to->squares + c + v * LANES, around.squares[v] - rest * around.deviations[v], count);
    }
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        const long image = unit / blocks(call), block = unit % blocks(call), pixels = pixels_of(call, block);
        const element *const x = (const element *)call->arrays[0].data + (image * call->in_extent + block * ROW_BLOCK) * CHANNELS;
        part *const to = parts_of(call, image) + block;
        long c = 0;
        for (; c + VECTORS * LANES <= CHANNELS; c += VECTORS * LANES)
            take(x, pixels, to, c, VECTORS, LANES);
        for (; c + LANES <= CHANNELS; c += LANES)
            take(x, pixels, to, c, 1, LANES);
        take(x, pixels, to, c, 1, CHANNELS % LANES);
    }
}

static long units_of_groups(const cj_call *call)
{
    return call->batch * ((CHANNELS + WIDTH - 1) / WIDTH);
}

/* The mean and the squares around it of `width` channels from `c` on, of all blocks of an image. */
static void join_blocks(const cj_call *call, long image, long c, long width, double *mean, double *squares)
{
    const part *const parts = parts_of(call, image);
    for (long n = 0; n < width; n++)
        mean[n] = squares[n] = 0;
    for (long block = 0; block < blocks(call); block++)
        for (long n = 0; n < width; n++)
            mean[n] += pixels_of(call, block) * ((double)parts[block].mean[c + n] + parts[block].rest[c + n]);
    for (long n = 0; n < width; n++)
        mean[n] /= call->in_extent;
    for (long block = 0; block < blocks(call); block++)
        for (long n = 0; n < width; n++) {
            const double apart = (double)parts[block].mean[c + n] + parts[block].rest[c + n] - mean[n];
            squares[n] += parts[block].squares[c + n] + pixels_of(call, block) * apart * apart;
        }
}

/* How to normalise the channels of a group, of which mean and squares are given: c is the first of them. */
static void join_channels(const cj_call *call, const double *mean, const double *squares, statistics *to, long c)
{
    double center = 0, total = 0;
    for (long n = 0; n < GROUP; n++)
        center += mean[n * APART];
    center /= GROUP;
    for (long n = 0; n < GROUP; n++)
        total += squares[n * APART] + call->in_extent * (mean[n * APART] - center) * (mean[n * APART] - center);
    const float scale = reciprocal_root(total / ((double)call->in_extent * GROUP));
    for (long n = c; n < c + GROUP * APART; n += APART) {
        to->mean[n] = center;
        to->rest[n] = center - to->mean[n];
        to->scale[n] = scale;
    }
}

static void run_groups(const cj_call *call, char *scratch, long first, long end)
{
    double *const mean = (double *)scratch, *const squares = mean + WIDTH;
    const long units = (CHANNELS + WIDTH - 1) / WIDTH;
    for (long unit = first; unit < end; unit++) {
        const long image = unit / units, c = unit % units * WIDTH, width = least(WIDTH, CHANNELS - c);
        join_blocks(call, image, c, width, mean, squares);
        for (long n = 0; n < width; n += GROUP)
            join_channels(call, mean + n, squares + n, statistics_of(call, image), c + n);
    }
}

INLINE vec normalised(const row *of, const statistics *with, long c, int count)
{
    const vec x = load_f32(of->x + c, count);
    return (x - load_f32(with->mean + c, count) - load_f32(with->rest + c, count)) * load_f32(with->scale + c, count);
}

static void run_pixels(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        const long image = unit / blocks(call), block = unit % blocks(call);
        const statistics *const with = statistics_of(call, image);
        const long pixel = image * call->in_extent + block * ROW_BLOCK, last = pixel + pixels_of(call, block);
        for (long number = pixel; number < last; number++) {
            const row of = row_at(call->arrays, number);
            long c = 0;
            for (; c + LANES <= CHANNELS; c += LANES)
                finish(&of, normalised(&of, with, c, LANES), c, LANES);
            finish(&of, normalised(&of, with, c, CHANNELS % LANES), c, CHANNELS % LANES);
        }
    }
}

const cj_kernel norm_nx40 = {
    .scratch_bytes = 2 * WIDTH * sizeof(double),
    .shared_bytes = shared_bytes,
    .num_stages = 3,
    .stages = { { units, run }, { units_of_groups, run_groups }, { units, run_pixels } },
};
