/* 2D convolution of f32: nx28 x 64 channels -> nx28 x 64, kernel 3x3, stride 1x1, padding (1, 1) and (1, 1) 64 groups
 *
 * A vector of output channels at a time, each lane with the input channels of its own group. A tile of 2 x 7 outputs is
 * summed in registers; an input vector is loaded once for all taps of a row and all rows that use it.
 * Nothing is copied: taps in the padding are left out, by functions of their own for the tiles at the edges of a row.
 */
#include <string.h>

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

enum { /* extents are 1 for an outermost axis that is not the width: no address depends on it */
    HEIGHT = 1, WIDTH = 28, CHANNELS = 64, /* of the input */
    OUT_HEIGHT = 1, OUT_WIDTH = 28, OUT_CHANNELS = 64,
    STRIDE_D = 1, STRIDE_H = 1, STRIDE_W = 1,
    STEP_D = 1, STEP_H = 1, STEP_W = 1, /* between taps */
    PERIOD_D = 1, PERIOD_H = 1, PERIOD_W = 1, /* between outputs of one phase */
    PHASE_WIDTH = (OUT_WIDTH + PERIOD_W - 1) / PERIOD_W, /* outputs of the largest phase */
    GROUP_CHANNELS = 1, GROUP_OUTPUTS = 1,

    TILE_ROWS = 2, TILE_COLUMNS = 7, /* outputs at a time */
    TAPS = 3, /* of a row at a time, whose weights are in registers */
    TAPS_H = 3, TILE_WIDTH = (TILE_COLUMNS - 1) * STRIDE_W + 2 * STEP_W + 1, /* input columns of a tile */
    USED_LANES = 16, VECTORS = (OUT_CHANNELS + USED_LANES - 1) / USED_LANES,
    ROW_BLOCK = 4,
    COLUMN_BLOCK = 28, COLUMN_BLOCKS = (PHASE_WIDTH + COLUMN_BLOCK - 1) / COLUMN_BLOCK,
    VECTOR_BLOCK = 2, VECTOR_BLOCKS = (VECTORS + VECTOR_BLOCK - 1) / VECTOR_BLOCK,

    CHANNEL_WEIGHTS = 64, TAP_WEIGHTS = GROUP_CHANNELS * CHANNEL_WEIGHTS, /* floats of one channel of a tap, of a tap */
    COLUMN_STEP = CHANNELS, ROW_STEP = WIDTH * COLUMN_STEP, PLANE_STEP = HEIGHT * ROW_STEP, /* of what the tiles read */
};

INLINE int least(int a, int b)
{
    return a < b ? a : b;
}

/* The arrays of one image that the epilogue reads and writes. */
typedef struct {
    const float *extra0;
    float *result0;
} image;

/* What the epilogue reads of some channels, wherever their output is: loaded once, ahead of stores that it might alias. */
typedef struct {
    vec extra0;
} per_channel;

INLINE per_channel load_per_channel(const image *of, long o, int count)
{
    return (per_channel){
        .extra0 = load_f32(of->extra0 + o, count),
    };
}

/* The epilogue of `count` channels from `o` on, at output (d, h, w). */
INLINE void finish_with(const per_channel *with, const image *of, vec sum, long d, long h, long w, long o, int count)
{
    const vec e0 = with->extra0;
    const vec v0 = sum + e0;
    const mask v2 = ~(v0 <= splat(0.0f));
    const vec v3 = select(v2, v0, splat(0.0f));
    const long at = ((d * OUT_HEIGHT + h) * OUT_WIDTH + w) * OUT_CHANNELS + o;
    store_f32(of->result0 + at, v3, count);
}

/* Outputs that are a plain convolution with some of the taps. */
typedef struct {
    int first_d, first_h, first_w;    /* the first output */
    int offset_d, offset_h, offset_w; /* the input position of its first tap; negative in the padding */
    int taps_d, taps_h, taps_w;
    long weights; /* floats before its own */
} phase;

static const phase phases[] = {
    { 0, 0, 0, 0, -1, -1, 1, 3, 3, 0 },
};

/* A tile: what it reads and where it writes. */
typedef struct {
    const phase *phase;
    int depth, height; /* of the input */
    const image *of;
    const float *x;
    long origin; /* where the first of its input channels at position (0, 0, 0) is, or would be, in x */
    const float *weights;
    int d, h, w; /* its first output, counted within the phase */
    int vector;  /* its channels */
} place;

INLINE int most(int a, int b)
{
    return a > b ? a : b;
}

/* The taps of an axis that meet input: from the first that is not negative to the last below `extent`. */
INLINE int first_tap(int position, int step, int taps)
{
    return position < 0 ? least((step - 1 - position) / step, taps) : 0;
}

INLINE int end_tap(int position, int step, int taps, int extent)
{
    return position < extent ? least((extent - position + step - 1) / step, taps) : 0;
}

/* The last vector overlaps the one before it. */
INLINE long first_output(int vector)
{
    return least(vector * USED_LANES, OUT_CHANNELS - USED_LANES);
}

INLINE long first_channel(int vector)
{
    return first_output(vector);
}

/* What one input row adds to rows `first_row` up to `end_row` of the tile through `taps` of their taps: those of row 0 have
 * `weights`, those of each next row the row of weights before. Columns before `left` and from `right` on are padding. */
INLINE void add_taps(vec sum[TILE_ROWS][TILE_COLUMNS], const float *x, const float *weights, long row_weights,
                     const int first_row, const int end_row, const int taps, const int left, const int right)
{
    vec weight[TILE_ROWS][TAPS];
    UNROLL for (int r = first_row; r < end_row; r++)
        UNROLL for (int k = 0; k < taps; k++)
            weight[r][k] = load_f32(weights - r * row_weights + k * TAP_WEIGHTS, USED_LANES);
    const int end = least(right, (TILE_COLUMNS - 1) * STRIDE_W + (taps - 1) * STEP_W + 1);
    UNROLL for (int column = most(left, 0); column < end; column++) {
        const vec v = load_f32(x + column * COLUMN_STEP, USED_LANES);
        UNROLL for (int k = 0; k < taps; k++) {
            const int beyond = column - k * STEP_W, pixel = beyond / STRIDE_W;
            if (beyond >= 0 && beyond % STRIDE_W == 0 && pixel < TILE_COLUMNS) {
                UNROLL for (int r = first_row; r < end_row; r++)
                    sum[r][pixel] += v * weight[r][k];
            }
        }
    }
}

/* The same through all `taps_w` taps of a row. */
INLINE void add_row(vec sum[TILE_ROWS][TILE_COLUMNS], const float *x, const float *weights, const int first_row,
                    const int end_row, const int taps_w, const int left, const int right)
{
    const long row_weights = (long)taps_w * TAP_WEIGHTS;
    UNROLL for (int first = 0; first < taps_w; first += TAPS)
        add_taps(sum, x + first * (STEP_W * COLUMN_STEP), weights + first * TAP_WEIGHTS, row_weights, first_row, end_row,
                 least(TAPS, taps_w - first), left - first * STEP_W, right - first * STEP_W);
}

/* A row of padding. */
static float zeros[TILE_WIDTH * COLUMN_STEP];

/* Sums and finishes one tile, whose phase has `taps_w` taps in a row. */
INLINE void tile(const place *at, const int taps_w, const int left, const int right)
{
    const place t = *at;
    const phase p = *t.phase;
    const int from_d = t.d * STRIDE_D + p.offset_d, from_h = t.h * STRIDE_H + p.offset_h, from_w = t.w * STRIDE_W + p.offset_w;
    const long row_weights = (long)taps_w * TAP_WEIGHTS;
    vec sum[TILE_ROWS][TILE_COLUMNS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++)
        UNROLL for (int pixel = 0; pixel < TILE_COLUMNS; pixel++)
            sum[r][pixel] = (vec){0};
    const int tap_d = 0;
    {
        const float *x = t.x + (t.origin + (long)(from_d + tap_d * STEP_D) * PLANE_STEP + (long)from_h * ROW_STEP + (long)from_w * COLUMN_STEP);
        const float *weights = t.weights + tap_d * p.taps_h * row_weights;
        UNROLL for (int row = 0; row < TILE_ROWS + TAPS_H - 1; row++) {
            const float *x_row = 0 <= from_h + row && from_h + row < t.height ? x + row * (long)ROW_STEP : zeros;
            add_row(sum, x_row, weights + row * row_weights, most(0, row - TAPS_H + 1), least(TILE_ROWS, row + 1), taps_w, left, right);
        }
    }
    const image here = *t.of; /* which no store can change */
    const long out_d = p.first_d + (long)t.d * PERIOD_D, out_h = p.first_h + (long)t.h * PERIOD_H, out_w = p.first_w + (long)t.w * PERIOD_W;
    const long o = first_output(t.vector);
    const per_channel with = load_per_channel(&here, o, USED_LANES);
    UNROLL for (int r = 0; r < TILE_ROWS; r++)
        UNROLL for (int pixel = 0; pixel < TILE_COLUMNS; pixel++)
            finish_with(&with, &here, sum[r][pixel], out_d, out_h + r * PERIOD_H, out_w + pixel * PERIOD_W, o, USED_LANES);
}

typedef void tile_function(const place *at);

static __attribute__((noinline)) void tile_3_0_9(const place *at)
{
    tile(at, 3, 0, 9);
}

static __attribute__((noinline)) void tile_3_1_9(const place *at)
{
    tile(at, 3, 1, 9);
}

static __attribute__((noinline)) void tile_3_0_8(const place *at)
{
    tile(at, 3, 0, 8);
}

/* The function for tiles whose first output is column w of a phase. */
static tile_function *tile_at(const phase *p, int w)
{
    const int span = p->taps_w ? (TILE_COLUMNS - 1) * STRIDE_W + (p->taps_w - 1) * STEP_W + 1 : 0;
    const int from = w * STRIDE_W + p->offset_w, left = least(most(-from, 0), span), right = least(most(WIDTH - from, 0), span);
    if (p->taps_w == 3 && left == 1 && right == 9)
        return tile_3_1_9;
    if (p->taps_w == 3 && left == 0 && right == 8)
        return tile_3_0_8;
    return tile_3_0_9;
}

/* Outputs of one phase that are done together, and their channels. */
typedef struct {
    int depth, height; /* of the input */
    int d, h, w, rows, columns;
    int first_vector, end_vector;
} block;

static void run_block(const phase *p, const block *b, const float *x, float *copy, const float *weights, const image *of)
{
    place at = {.phase = p, .depth = b->depth, .height = b->height, .of = of, .x = x, .d = b->d};
    for (int column = 0; column < b->columns; column += TILE_COLUMNS) {
        at.w = b->w + least(column, b->columns - TILE_COLUMNS); /* the last tiles overlap those before them */
        tile_function *const run_tile = tile_at(p, at.w);
        for (int row = 0; row < b->rows; row += TILE_ROWS) {
            at.h = b->h + least(row, b->rows - TILE_ROWS);
            for (int v = b->first_vector; v < b->end_vector; v++) {
                at.vector = v;
                at.origin = first_channel(v);
                at.weights = weights + p->weights + first_output(v);
                run_tile(&at);
            }
        }
    }
}

/* Outputs of a phase along an axis. */
INLINE int outputs(int extent, int first, int period)
{
    return (extent - first + period - 1) / period;
}

/* Of the largest phase. */
static int planes(const cj_call *call)
{
    return outputs(1, 0, PERIOD_D);
}

static int row_blocks(const cj_call *call)
{
    return (outputs(call->out_extent, 0, PERIOD_H) + ROW_BLOCK - 1) / ROW_BLOCK;
}

static long units(const cj_call *call)
{
    return call->batch * row_blocks(call) * VECTOR_BLOCKS * planes(call) * COLUMN_BLOCKS;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const cj_array *arrays = call->arrays;
    for (long unit = first; unit < end; unit++) {
        long rest = unit;
        const int w = rest % COLUMN_BLOCKS * COLUMN_BLOCK;
        const int d = (rest /= COLUMN_BLOCKS) % planes(call);
        const int vector = (rest /= planes(call)) % VECTOR_BLOCKS * VECTOR_BLOCK;
        const int h = (rest /= VECTOR_BLOCKS) % row_blocks(call) * ROW_BLOCK;
        const long n = rest / row_blocks(call);
        const float *x = (const float *)(arrays[0].data + n * arrays[0].batch_step);
        const image of = {
            .extra0 = (const float *)(arrays[2].data + n * arrays[2].batch_step),
            .result0 = (float *)(arrays[3].data + n * arrays[3].batch_step),
        };

        for (const phase *p = phases; p < phases + 1; p++) {
            const int depth = outputs(1, p->first_d, PERIOD_D);
            const int height = outputs(call->out_extent, p->first_h, PERIOD_H);
            const int width = outputs(OUT_WIDTH, p->first_w, PERIOD_W);
            if (d >= depth || h >= height || w >= width)
                continue;
            block b = {.depth = 1, .height = call->in_extent, .d = d, .first_vector = vector};
            b.h = least(h, height - TILE_ROWS); /* the last blocks are narrow, but as wide as a tile */
            b.w = least(w, width - TILE_COLUMNS);
            b.rows = least(ROW_BLOCK, height - b.h);
            b.columns = least(COLUMN_BLOCK, width - b.w);
            b.end_vector = least(vector + VECTOR_BLOCK, VECTORS);
            run_block(p, &b, x, (float *)scratch, (const float *)(arrays[1].data + n * arrays[1].batch_step), &of);
        }
    }
}

const cj_kernel conv2d_nx28x64_3x3x64 = {
    .num_stages = 1,
    .stages = { { units, run } },
};
