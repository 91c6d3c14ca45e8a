/* 2D convolution of f32: nx64 x 64 channels -> nx64 x 3, kernel 3x3, stride 1x1, padding (1, 1) and (1, 1)
 *
 * Direct convolution with few output channels: a vector holds neighbouring terms of one output, and its lanes are added
 * up at the end. A tile of 9 outputs of a row by 3 channels is summed in registers.
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

enum {
    CHANNELS = 64, OUT_CHANNELS = 3,
    GROUPS = 1, GROUP_CHANNELS = CHANNELS / GROUPS, GROUP_OUTPUTS = OUT_CHANNELS / GROUPS,
    PLANE_STEP = 0, ROW_STEP = 4096, /* of the input, in elements */
    OUT_HEIGHT = 1, OUT_WIDTH = 64, /* 1 for the outermost axis: no address depends on its extent */
    STRIDE_D = 1, STRIDE_H = 1, STRIDE_W = 1, /* between the inputs of neighbouring outputs of a phase */
    STEP_D = 1, STEP_H = 1, STEP_W = 1, /* between the inputs of neighbouring taps */
    PERIOD_D = 1, PERIOD_H = 1, PERIOD_W = 1, /* phases of each axis, taken by its outputs in turn */
    TAPS_H = 3, TAPS_W = 3, /* of all phases */
    GROUP_WIDTH = 3, /* outputs of a group, with those that fill up its last vector */

    TILE_ROWS = 1, TILE_COLUMNS = 9, PIXELS = TILE_ROWS * TILE_COLUMNS,
    ROW_BLOCK = 4, COLUMN_BLOCK = 45, /* outputs of a block */
    COPIED_ROW = 3008, COPIED_PLANE = 6 * COPIED_ROW, /* of a copy, in elements */
    PIXEL_STEP = CHANNELS, GROUP_STEP = GROUP_CHANNELS, /* of what tiles read */
};

/* Tap t of output q of a phase reads input `offset + q * STRIDE + t * STEP`. */
typedef struct {
    int taps, offset, taps_before;
} phase;

static const phase phases_d[] = {
    {1, 0, 0},
};
static const phase phases_h[] = {
    {3, -1, 0},
};
static const phase phases_w[] = {
    {3, -1, 0},
};

typedef struct {
    int d, h, w;
} position;

typedef struct {
    long d, h, w; /* parts of addresses */
} output;

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

/* A block of outputs of one phase. */
typedef struct {
    image of;
    position first, extent; /* its first output, counted within the phase; how many there are */
    position out;           /* the first output of the phase */
    position taps, in, size; /* taps; the input position of the first tap of the first output; the input's extents */
    const float *x;         /* what that tap reads, in the input or in a copy */
    long plane_step, tap_row_step, row_step; /* between taps along the depth and the height, and between rows of outputs */
    long weights;           /* of the phase, where they begin */
} block;

INLINE int is_outside(int position, int reach, int extent)
{
    return position + reach < 0 || position >= extent;
}

INLINE int runs_of(const block *b)
{
    return b->taps.d * b->taps.h;
}

INLINE int run_length(const block *b)
{
    return b->taps.w * GROUP_CHANNELS;
}

/* Does tap `tap` meet any input, in a tile whose first tap reads `in`? */
INLINE int meets_input(const block *b, position in, position tap)
{
    return !is_outside(in.d + tap.d * STEP_D, 0, b->size.d) &&
           !is_outside(in.h + tap.h * STEP_H, (TILE_ROWS - 1) * STRIDE_H, b->size.h);
}

/* The tap with which the run behind that of `tap` begins. */
INLINE position next_run(const block *b, position tap)
{
    if (++tap.h < b->taps.h)
        return tap;
    return (position){tap.d + 1, 0, 0};
}

/* What the first tap of the output at (row, column) of a block reads, of a group. */
INLINE const float *input_of(const block *b, int row, int column, int group)
{
    return b->x + row * b->row_step + (long)column * (STRIDE_W * PIXEL_STEP) + (long)group * GROUP_STEP;
}

INLINE position position_of(const block *b, int row, int column)
{
    return (position){b->in.d, b->in.h + row * STRIDE_H, b->in.w + column * STRIDE_W};
}

/* Where a run begins, counted from `input_of`. */
INLINE long offset_of(const block *b, position tap)
{
    return tap.d * b->plane_step + tap.h * b->tap_row_step + tap.w * (STEP_W * PIXEL_STEP);
}

/* Where the output at (row, column) of a block is. */
INLINE output output_at(const block *b, int row, int column)
{
    return (output){b->out.d + b->first.d * PERIOD_D, b->out.h + (b->first.h + row) * PERIOD_H, b->out.w + (b->first.w + column) * PERIOD_W};
}

/* `count` elements. */
static void copy(float *to, const float *from, long count)
{
    memcpy(to, from, count * sizeof *to);
}

/* Columns `first` up to `first + columns` of an input row: zeros where there are none. */
static void copy_row(float *to, const float *row, int first, int columns, int width)
{
    const int left = first < 0 ? least(-first, columns) : 0;
    const int end = width - first < left ? left : least(width - first, columns);
    memset(to, 0, (long)left * CHANNELS * sizeof *to);
    copy(to + (long)left * CHANNELS, row + (long)(first + left) * CHANNELS, (long)(end - left) * CHANNELS);
    memset(to + (long)end * CHANNELS, 0, (long)(columns - end) * CHANNELS * sizeof *to);
}

/* Makes a block read a copy of what it reads of image `x`: a plane for each tap along the depth, without those
 * planes that only padding meets. */
static void copy_block(block *b, const float *x, float *scratch)
{
    const int rows = (b->extent.h - 1) * STRIDE_H + (b->taps.h - 1) * STEP_H + 1;
    const int columns = (b->extent.w - 1) * STRIDE_W + (b->taps.w - 1) * STEP_W + 1;
    for (int plane = 0; plane < b->taps.d; plane++) {
        const int d = b->in.d + plane * STEP_D;
        if (is_outside(d, 0, b->size.d))
            continue;
        for (int row = 0; row < rows; row++) {
            float *to = scratch + (long)plane * COPIED_PLANE + (long)row * COPIED_ROW;
            const int h = b->in.h + row;
            if (is_outside(h, 0, b->size.h))
                copy_row(to, x, 0, columns, 0);
            else
                copy_row(to, x + (long)d * PLANE_STEP + (long)h * ROW_STEP, b->in.w, columns, b->size.w);
        }
    }
    b->x = scratch;
    b->plane_step = COPIED_PLANE;
    b->tap_row_step = STEP_H * COPIED_ROW;
    b->row_step = STRIDE_H * COPIED_ROW;
}

INLINE int is_partly_outside(int position, int reach, int extent)
{
    return !is_outside(position, reach, extent) && (position < 0 || position + reach >= extent);
}

/* Does a run of any tile read padding and input? */
static int reads_both(const block *b)
{
    enum { REACH_H = (TILE_ROWS - 1) * STRIDE_H, REACH_W = (TILE_COLUMNS - 1) * STRIDE_W };
    for (int r = 0; r < b->extent.h; r += TILE_ROWS)
        for (int tap = 0; tap < b->taps.h; tap++)
            if (is_partly_outside(b->in.h + least(r, b->extent.h - TILE_ROWS) * STRIDE_H + tap * STEP_H, REACH_H, b->size.h))
                return 1;
    for (int c = 0; c < b->extent.w; c += TILE_COLUMNS) {
        const int w = b->in.w + least(c, b->extent.w - TILE_COLUMNS) * STRIDE_W;
        const int reach = REACH_W + b->taps.w - 1;
        if (w < 0 || w + reach >= b->size.w)
            return 1;
    }
    return 0;
}

/* How many of an axis's outputs are of a phase. */
INLINE int outputs_of(int outputs, int period, int phase)
{
    return (outputs - phase + period - 1) / period;
}

/* Outputs of an axis that a block takes: all blocks about the same, whole tiles, at most `most`. */
INLINE int block_size(int outputs, int most, int tile)
{
    const int tiles = (outputs + tile - 1) / tile, blocks = (outputs + most - 1) / most;
    return (tiles + blocks - 1) / blocks * tile;
}

INLINE int blocks_of(int outputs, int size)
{
    return (outputs + size - 1) / size;
}

typedef struct {
    position in, out;         /* extents of input and output */
    int row_block, column_block;
    position blocks;          /* of outputs of a phase */
    long places;              /* blocks of an image, in all phases */
} grid;

static grid grid_of(const cj_call *call)
{
    grid g = {
        .in = { 1, call->in_extent, 64 },
        .out = { 1, call->out_extent, 64 },
    };
    const position most = {outputs_of(g.out.d, PERIOD_D, 0), outputs_of(g.out.h, PERIOD_H, 0), outputs_of(g.out.w, PERIOD_W, 0)};
    g.row_block = block_size(most.h, ROW_BLOCK, TILE_ROWS);
    g.column_block = block_size(most.w, COLUMN_BLOCK, TILE_COLUMNS);
    g.blocks = (position){most.d, blocks_of(most.h, g.row_block), blocks_of(most.w, g.column_block)};
    g.places = (long)g.blocks.d * PERIOD_D * g.blocks.h * PERIOD_H * g.blocks.w * PERIOD_W;
    return g;
}

/* Block `place` of image n; without outputs where a phase has fewer blocks than others. */
static block block_at(const cj_call *call, const grid *g, long n, long place, float *scratch)
{
    const cj_array *arrays = call->arrays;
    const int of_w = place % PERIOD_W, of_h = place / PERIOD_W % PERIOD_H, of_d = place / PERIOD_W / PERIOD_H % PERIOD_D;
    place /= PERIOD_W * PERIOD_H * PERIOD_D;
    const phase *p_d = &phases_d[of_d], *p_h = &phases_h[of_h], *p_w = &phases_w[of_w];
    const position outputs = {outputs_of(g->out.d, PERIOD_D, of_d), outputs_of(g->out.h, PERIOD_H, of_h), outputs_of(g->out.w, PERIOD_W, of_w)};
    const int w = place % g->blocks.w * g->column_block, h = place / g->blocks.w % g->blocks.h * g->row_block;
    const int d = place / g->blocks.w / g->blocks.h;
    const float *x = (const float *)(arrays[0].data + n * arrays[0].batch_step);
        const image of = {
            .extra0 = (const float *)(arrays[2].data + n * arrays[2].batch_step),
            .result0 = (float *)(arrays[3].data + n * arrays[3].batch_step),
        };

    if (d >= outputs.d || h >= outputs.h || w >= outputs.w)
        return (block){.extent = {0}};
    block b = {
        .of = of,
        .first = {d, least(h, outputs.h - TILE_ROWS), least(w, outputs.w - TILE_COLUMNS)}, /* the last blocks are no smaller than a tile */
        .out = {of_d, of_h, of_w},
        .taps = {p_d->taps, p_h->taps, p_w->taps},
        .size = g->in,
        .plane_step = (long)STEP_D * PLANE_STEP,
        .tap_row_step = (long)STEP_H * ROW_STEP,
        .row_step = (long)STRIDE_H * ROW_STEP,
    };
    b.extent = (position){1, least(g->row_block, outputs.h - b.first.h), least(g->column_block, outputs.w - b.first.w)};
    b.in = (position){b.first.d * STRIDE_D + p_d->offset, b.first.h * STRIDE_H + p_h->offset, b.first.w * STRIDE_W + p_w->offset};
    const long taps_before = ((long)p_d->taps_before * TAPS_H + (long)p_d->taps * p_h->taps_before) * TAPS_W + (long)p_d->taps * p_h->taps * p_w->taps_before;
    b.weights = taps_before * GROUPS * GROUP_WIDTH * GROUP_CHANNELS;
    b.x = x + (long)b.in.d * PLANE_STEP + (long)b.in.h * ROW_STEP + (long)b.in.w * CHANNELS;
    if (scratch && reads_both(&b))
        copy_block(&b, x, scratch);
    return b;
}

INLINE void finish(const image *of, vec sum, long d, long h, long w, long o, int count)
{
    const per_channel with = load_per_channel(of, o, count);
    finish_with(&with, of, sum, d, h, w, o, count);
}

enum {
    SUMS = PIXELS * OUT_CHANNELS, SUM_VECTORS = (SUMS + LANES - 1) / LANES,
    LAST_TERMS = 0, /* of a run, in its last vector; 0: it is full */
    PREFETCH = 1024, /* floats ahead of the input in use */
};

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

/* The sums of neighbouring lanes of a, then those of b. */
INLINE vec add_neighbours(vec a, vec b)
{
    return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/* Lane n of the result is the sum of the lanes of v[n], for LANES vectors. */
INLINE vec add_lanes(vec *v)
{
    UNROLL for (int count = LANES / 2; count > 0; count /= 2)
        UNROLL for (int n = 0; n < count; n++)
            v[n] = add_neighbours(v[2 * n], v[2 * n + 1]);
    return v[0];
}

/* The products of `count` terms of all outputs of a tile. */
INLINE void add_products(vec *sum, const float *from, const float *weights, long output_step, int count)
{
    vec weight[OUT_CHANNELS];
    UNROLL for (int o = 0; o < OUT_CHANNELS; o++)
        weight[o] = load_f32(weights + o * output_step, count);
    UNROLL for (int pixel = 0; pixel < PIXELS; pixel++) {
        const vec x = load_f32(from + pixel * (STRIDE_W * CHANNELS), count);
        __builtin_prefetch(from + pixel * (STRIDE_W * CHANNELS) + PREFETCH);
        UNROLL for (int o = 0; o < OUT_CHANNELS; o++)
            sum[pixel * OUT_CHANNELS + o] += x * weight[o];
    }
}

/* Sums and finishes one tile. */
static __attribute__((noinline)) void tile(const block *b, const float *restrict weights, int row, int column)
{
    const float *const x = input_of(b, row, column, 0);
    const position in = position_of(b, row, column);
    const long output_step = (long)runs_of(b) * run_length(b);
    vec sum[SUM_VECTORS * LANES];
    UNROLL for (int n = 0; n < SUM_VECTORS * LANES; n++)
        sum[n] = (vec){0};
    position tap = {0};
    for (int run = 0; run < runs_of(b); run++, tap = next_run(b, tap)) {
        if (!meets_input(b, in, tap))
            continue;
        const float *from = x + offset_of(b, tap), *weight = weights + (long)run * run_length(b);
        for (int vectors = run_length(b) / LANES; vectors > 0; vectors--, from += LANES, weight += LANES)
            add_products(sum, from, weight, output_step, LANES);
        if (LAST_TERMS)
            add_products(sum, from, weight, output_step, LAST_TERMS);
    }
    float totals[SUM_VECTORS * LANES + LANES];
    UNROLL for (int n = 0; n < SUM_VECTORS; n++)
        store_f32(totals + n * LANES, add_lanes(sum + n * LANES), LANES);
    const image of = b->of;
    const output at = output_at(b, row, column);
    for (int pixel = 0; pixel < PIXELS; pixel++)
        UNROLL for (int o = 0; o < OUT_CHANNELS; o += LANES) {
            const int count = least(OUT_CHANNELS - o, LANES);
            finish(&of, load_f32(totals + pixel * OUT_CHANNELS + o, count), at.d, at.h, at.w + pixel * PERIOD_W, o, count);
        }
}

static long units(const cj_call *call)
{
    const grid g = grid_of(call);
    return call->batch * g.places;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const grid g = grid_of(call);
    for (long unit = first; unit < end; unit++) {
        const float *packed = (const float *)(call->arrays[1].data + unit / g.places * call->arrays[1].batch_step);
        const block b = block_at(call, &g, unit / g.places, unit % g.places, (float *)scratch);
        for (int row = 0; row < b.extent.h; row++)
            for (int c = 0; c < b.extent.w; c += TILE_COLUMNS)
                tile(&b, packed + b.weights, row, least(c, b.extent.w - TILE_COLUMNS)); /* the last tile overlaps */
    }
}

const cj_kernel conv2d_nx64x64_3x3x3 = {
    .scratch_bytes = 72192,
    .num_stages = 1,
    .stages = { { units, run } },
};
