/* Greatest elements of windows of f32: nx56 x 20 channels -> nx28, window 3x3, stride 2x2, padding (1, 1)
 *
 * Outputs one after the other, 4 vectors of channels at a time. Taps in the padding are left out: outputs of
 * which all taps meet input, in the middle of most rows, have a function of their own, with the taps as literals.
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

enum { /* steps in elements; the extents of the outermost axis are in the call, and no address depends on them */
    CHANNELS = 20, COLUMN_STEP = CHANNELS, ROW_STEP = 56 * COLUMN_STEP, PLANE_STEP = 1 * ROW_STEP,
    TAPS_D = 1, TAPS_H = 3, TAPS_W = 3,
    STRIDE_D = 1, STRIDE_H = 2, STRIDE_W = 2,
    PAD_D = 0, PAD_H = 1, PAD_W = 1, /* before the first element of each axis */
    CHANNEL_BLOCK = 32, CHANNEL_BLOCKS = (CHANNELS + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK,
};

INLINE long least(long a, long b)
{
    return a < b ? a : b;
}

INLINE long most(long a, long b)
{
    return a > b ? a : b;
}

/* Taps of an output along the three axes. */
typedef struct {
    long d, h, w;
} taps;

enum {
    PIXEL_BLOCK = 364, /* outputs of a unit */
    VECTORS = 4,
};

/* NaN goes ahead of all numbers; of equal ones, zeros of both signs among them, the first counts. */
INLINE vec joined(vec total, vec x)
{
    return select((x > total) | (x != x), x, total);
}

/* `vectors` vectors of an output; of the last one, `count` lanes. */
INLINE void pool(const element *x, taps of, element *y, int vectors, int count)
{
    vec total[VECTORS];
    UNROLL for (int v = 0; v < vectors; v++)
        total[v] = splat(-__builtin_inff());
    for (long d = 0; d < of.d; d++)
        for (long h = 0; h < of.h; h++) {
            const element *const row = x + d * PLANE_STEP + h * ROW_STEP;
            for (long w = 0; w < of.w; w++)
                UNROLL for (int v = 0; v < vectors; v++)
                    total[v] = joined(total[v], load_f32(row + w * COLUMN_STEP + v * LANES, count));
        }
    UNROLL for (int v = 0; v < vectors; v++)
        store_f32(y + v * LANES, total[v], count);
}

/* An output whose first tap is at `x`, `channels` of it. */
INLINE void pool_channels(const element *x, taps of, element *y, long channels)
{
    long c = 0;
    for (; c + VECTORS * LANES <= channels; c += VECTORS * LANES)
        pool(x + c, of, y + c, VECTORS, LANES);
    for (; c + LANES <= channels; c += LANES)
        pool(x + c, of, y + c, 1, LANES);
    if (c < channels)
        pool(x + c, of, y + c, 1, CHANNELS % LANES);
}

/* Outputs `first` up to `end` of a row, all of whose taps meet input; that at column 0 would begin at `x` and `y`. */
static void whole_windows(const element *x, element *y, long first, long end, long channels)
{
    for (long w = first; w < end; w++)
        pool_channels(x + w * STRIDE_W * COLUMN_STEP, (taps){TAPS_D, TAPS_H, TAPS_W}, y + w * COLUMN_STEP, channels);
}

/* The same where taps may lie in the padding; `of` are those of planes and rows that do not. */
static void cut_windows(const element *x, taps of, long width, element *y, long first, long end, long channels)
{
    for (long w = first; w < end; w++) {
        const long from = w * STRIDE_W - PAD_W, first_tap = most(-from, 0);
        of.w = least(width - from, TAPS_W) - first_tap;
        pool_channels(x + (w * STRIDE_W + first_tap) * COLUMN_STEP, of, y + w * COLUMN_STEP, channels);
    }
}

/* Outputs `first` up to `end` of row h of plane d. */
static void pool_row(const element *x, const long *extents, long d, long h, element *y, long first, long end, long channels)
{
    const long from_d = d * STRIDE_D - PAD_D, from_h = h * STRIDE_H - PAD_H;
    const long first_d = most(-from_d, 0), first_h = most(-from_h, 0);
    const taps of = {least(extents[0] - from_d, TAPS_D) - first_d, least(extents[1] - from_h, TAPS_H) - first_h, 0};
    const element *const row = x + (from_d + first_d) * PLANE_STEP + (from_h + first_h) * ROW_STEP - PAD_W * COLUMN_STEP;
    const int is_cut = of.d < TAPS_D || of.h < TAPS_H;
    const long fit = extents[2] + PAD_W - TAPS_W; /* where the last whole window could begin, from the first column of padding on */
    const long left = is_cut ? end : least(most((PAD_W + STRIDE_W - 1) / STRIDE_W, first), end);
    const long right = fit < 0 ? left : most(least(fit / STRIDE_W + 1, end), left);
    cut_windows(row, of, extents[2], y, first, left, channels);
    whole_windows(row, y, left, right, channels);
    cut_windows(row, of, extents[2], y, right, end, channels);
}

static long units(const cj_call *call)
{
    const long pixels = 1 * call->out_extent * 28;
    return (call->batch * pixels + PIXEL_BLOCK - 1) / PIXEL_BLOCK * CHANNEL_BLOCKS;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const long extents[] = { 1, call->in_extent, 56 };
    const long depth = 1, height = call->out_extent, width = 28;
    for (long unit = first; unit < end; unit++) {
        const long c = unit % CHANNEL_BLOCKS * CHANNEL_BLOCK, channels = least(CHANNEL_BLOCK, CHANNELS - c);
        long pixel = unit / CHANNEL_BLOCKS * PIXEL_BLOCK;
        const long last = least(pixel + PIXEL_BLOCK, call->batch * depth * height * width);
        while (pixel < last) {
            const long row = pixel / width, plane = row / height, image = plane / depth;
            const long w = pixel % width, columns = least(width - w, last - pixel);
            const element *const x = (const element *)(call->arrays[0].data + image * call->arrays[0].batch_step) + c;
            element *const y = (element *)(call->arrays[1].data + image * call->arrays[1].batch_step) + c;
            pool_row(x, extents, plane % depth, row % height, y + row % (depth * height) * width * COLUMN_STEP, w, w + columns, channels);
            pixel += columns;
        }
    }
}

const cj_kernel max_pool2d_nx56x20 = {
    .num_stages = 1,
    .stages = { { units, run } },
};
