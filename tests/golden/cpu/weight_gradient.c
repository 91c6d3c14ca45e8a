/* The gradient of the weight of a 2D convolution of f32: nx16 x 32 channels -> nx16 x 32, kernel 3x3, stride 1x1, padding (1, 1) and (1, 1)
 *
 * The gradient of the weight: dw[o, tap, c] is the sum over all pixels of dy[pixel, o] * x[what the tap reads there, c].
 * A tile of 32 output channels by 12 elements of the input is summed in registers: vectors of dy are loaded
 * once a pixel, and each element of the input is broadcast once.
 * Taps that lie side by side in memory are one run, with all their channels.
 * Pixels are taken in blocks, which bounds the chains of additions.
 * A block reads copies of dy and x, with zeros around x.
 * The blocks are shared out as up to 16 parts, the tiles as 1; the sums of the parts are added up in the end.
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
    CHANNELS = 32, OUT_CHANNELS = 32,
    GROUPS = 1, GROUP_CHANNELS = 32, GROUP_OUTPUTS = 32, /* a depthwise kernel's channels are one group */
    TAPS_D = 1, TAPS_H = 3, TAPS_W = 3,
    STRIDE_D = 1, STRIDE_H = 1, STRIDE_W = 1, /* between the inputs of neighbouring pixels */
    STEP_D = 1, STEP_H = 1, STEP_W = 1, /* between the inputs of neighbouring taps */
    PLANE_STEP = 0, ROW_STEP = 512, /* of the input, in elements */
    DY_PLANE_STEP = 0, DY_ROW_STEP = 512,

    ROW_BLOCK = 16, COLUMN_BLOCK = 16, SEGMENTS = 1, /* pixels of a block: so many rows of so many segments */
    COPIED_ROWS = 18, COPIED_ROW = 576, COPIED_SEGMENT = TAPS_D * COPIED_ROWS * COPIED_ROW, /* of the input, in floats */
    X_PLANE = COPIED_ROWS * COPIED_ROW, X_TAP_ROW = STEP_H * COPIED_ROW, X_ROW = STRIDE_H * COPIED_ROW, /* between taps, and between rows of pixels */

    RUN_LENGTH = 96, RUNS = 3, /* elements of the weight that lie side by side; how many times, for an output */
    VECTORS = 2, FACTORS = 12, TILE_FLOATS = FACTORS * VECTORS * LANES,
    DY_STEP = VECTORS * LANES, DY_ROW = COLUMN_BLOCK * DY_STEP, DY_SEGMENT = ROW_BLOCK * DY_ROW, /* of the copy of dy, for each block of its vectors */
    VECTOR_BLOCKS = 1, FACTOR_BLOCKS = 8, FACTOR_EXTENT = 96, /* of a run */
    TILES = GROUPS * RUNS * VECTOR_BLOCKS * FACTOR_BLOCKS,
    SPLITS = 1, PARTS = 16,
};

INLINE int least(int a, int b)
{
    return a < b ? a : b;
}

INLINE int quotient(int a, int b)
{
    return (a + b - 1) / b;
}

/* Some rows of pixels in one plane, as wide as a block. */
typedef struct {
    const float *x, *dy; /* of its first pixel */
    int columns;
} segment;

typedef struct {
    segment segments[SEGMENTS];
    int count, rows;
} block;

typedef struct {
    int d, h, w;
} position;

typedef struct {
    position in, out; /* extents */
    int row_block, row_blocks, column_block, column_blocks;
    long segments, blocks, parts;
} grid;

static grid grid_of(const cj_call *call)
{
    grid g = {
        .in = { 1, call->in_extent, 16 },
        .out = { 1, call->out_extent, 16 },
    };
    g.row_block = quotient(g.out.h, quotient(g.out.h, ROW_BLOCK)); /* all blocks about the same */
    g.row_blocks = quotient(g.out.h, g.row_block);
    g.column_block = quotient(g.out.w, quotient(g.out.w, COLUMN_BLOCK));
    g.column_blocks = quotient(g.out.w, g.column_block);
    g.segments = call->batch * g.out.d * g.column_blocks;
    g.blocks = (g.segments + SEGMENTS - 1) / SEGMENTS * g.row_blocks;
    g.parts = g.blocks < PARTS ? g.blocks : PARTS;
    return g;
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

/* What `rows` rows of `columns` pixels read of image `x`; `from` is where the first tap of the first one does. */
static void copy_input(float *to, const float *x, position from, position extent, int rows, int columns)
{
    const int high = (rows - 1) * STRIDE_H + (TAPS_H - 1) * STEP_H + 1, wide = (columns - 1) * STRIDE_W + (TAPS_W - 1) * STEP_W + 1;
    for (int plane = 0; plane < TAPS_D; plane++)
        for (int row = 0; row < high; row++) {
            float *const target = to + (long)plane * X_PLANE + (long)row * COPIED_ROW;
            const int d = from.d + plane * STEP_D, h = from.h + row;
            if (d < 0 || d >= extent.d || h < 0 || h >= extent.h)
                memset(target, 0, (long)wide * CHANNELS * sizeof *target);
            else
                copy_row(target, x + (long)d * PLANE_STEP + (long)h * ROW_STEP, from.w, wide, extent.w);
        }
}

/* Columns of `vectors` vectors, `lanes` of the last one, side by side. */
INLINE void copy_vectors(float *to, const float *dy, int columns, int vectors, int lanes)
{
    for (; columns > 0; columns--, to += DY_STEP, dy += OUT_CHANNELS)
        UNROLL for (int v = 0; v < vectors; v++)
            store_f32(to + v * LANES, load_f32(dy + v * LANES, v < vectors - 1 ? LANES : lanes), LANES);
}

/* The vectors that a tile reads, side by side. */
static void copy_dy(float *to, const float *dy, int rows, int columns)
{
    for (int n = 0; n < GROUPS * VECTOR_BLOCKS; n++)
        for (int row = 0; row < rows; row++) {
            float *const target = to + ((long)n * SEGMENTS * DY_SEGMENT) + (long)row * DY_ROW;
            const float *const from = dy + (long)row * DY_ROW_STEP + n / VECTOR_BLOCKS * GROUP_OUTPUTS + n % VECTOR_BLOCKS * DY_STEP;
            copy_vectors(target, from, columns, 2, 16);
        }
}

/* Segment `number`, from row h on. */
static segment segment_at(const cj_call *call, const grid *g, long number, int h, int rows, float *x_copy, float *dy_copy)
{
    const cj_array *arrays = call->arrays;
    const long n = number / g->column_blocks / g->out.d;
    const int d = number / g->column_blocks % g->out.d, w = number % g->column_blocks * g->column_block;
    const int columns = least(g->column_block, g->out.w - w);
    const float *x = (const float *)(arrays[0].data + n * arrays[0].batch_step);
    const float *dy = (const float *)(arrays[1].data + n * arrays[1].batch_step) + (long)d * DY_PLANE_STEP + (long)h * DY_ROW_STEP + (long)w * OUT_CHANNELS;
    const position from = {d * STRIDE_D + 0, h * STRIDE_H + -1, w * STRIDE_W + -1};
    copy_input(x_copy, x, from, g->in, rows, columns);
    copy_dy(dy_copy, dy, rows, columns);
    return (segment){
        .x = x_copy,
        .dy = dy_copy,
        .columns = columns,
    };
}

static void block_at(block *b, const cj_call *call, const grid *g, long number, float *scratch)
{
    const long first = number / g->row_blocks * SEGMENTS, left = g->segments - first;
    const int h = number % g->row_blocks * g->row_block;
    b->count = left < SEGMENTS ? left : SEGMENTS;
    b->rows = least(g->row_block, g->out.h - h);
    for (int n = 0; n < b->count; n++)
        b->segments[n] = segment_at(call, g, first + n, h, b->rows, scratch + 8192 + (long)n * COPIED_SEGMENT, scratch + (long)n * DY_SEGMENT);
}

/* A tile of the gradient: output channels by elements of a run. */
typedef struct {
    int group, run, vector_block, first_factor;
    int repeated; /* factors that are those of the tile before, too */
} place;

INLINE place place_of(long number)
{
    const int nominal = number % FACTOR_BLOCKS * FACTORS, first = least(nominal, FACTOR_EXTENT - FACTORS);
    number /= FACTOR_BLOCKS;
    return (place){
        .group = number / VECTOR_BLOCKS / RUNS,
        .run = number / VECTOR_BLOCKS % RUNS,
        .vector_block = number % VECTOR_BLOCKS,
        .first_factor = first,
        .repeated = nominal - first,
    };
}

/* Adds the products of a block's pixels to the sums of a tile. Not inlined: among its caller's values an accumulator would
 * be spilled. */
static __attribute__((noinline)) void tile(const block *b, long x_at, long dy_at, float *sums, int is_first)
{
    enum { TILE_VECTORS = 2, TILE_LANES = 16, SUMS = FACTORS * TILE_VECTORS };
    vec sum[SUMS];
    UNROLL for (int n = 0; n < SUMS; n++)
        sum[n] = (vec){0};
    for (const segment *s = b->segments; s < b->segments + b->count; s++)
        for (int row = 0; row < b->rows; row++) {
            const float *x = s->x + x_at + (long)row * X_ROW, *dy = s->dy + dy_at + (long)row * DY_ROW;
            for (int columns = s->columns; columns > 0; columns--, x += STRIDE_W * CHANNELS, dy += DY_STEP) {
                vec vector[TILE_VECTORS];
                UNROLL for (int v = 0; v < TILE_VECTORS; v++)
                    vector[v] = load_f32(dy + v * LANES, LANES);
                UNROLL for (int f = 0; f < FACTORS; f++)
                    UNROLL for (int v = 0; v < TILE_VECTORS; v++)
                        sum[f * TILE_VECTORS + v] += x[f] * vector[v];
            }
        }
    UNROLL for (int n = 0; n < SUMS; n++)
        store_f32(sums + n * LANES, is_first ? sum[n] : sum[n] + load_f32(sums + n * LANES, LANES), LANES);
}

static void run_tile(const block *b, long number, float *sums, int is_first)
{
    const place p = place_of(number);
    long x_at = p.group * GROUP_CHANNELS + p.run / TAPS_H * (long)X_PLANE + p.run % TAPS_H * (long)X_TAP_ROW;
    x_at += p.first_factor;
    const long dy_at = ((long)p.group * VECTOR_BLOCKS + p.vector_block) * SEGMENTS * DY_SEGMENT;
    tile(b, x_at, dy_at, sums, is_first);
}

static long shared_bytes(const cj_call *call)
{
    return grid_of(call).parts * TILES * TILE_FLOATS * sizeof(float);
}

static long units(const cj_call *call)
{
    return grid_of(call).parts * SPLITS;
}

/* Shares of the tiles change fastest: the pixels are what neighbours have in common. */
static void run(const cj_call *call, char *scratch, long first, long end)
{
    const grid g = grid_of(call);
    block b;
    for (long unit = first; unit < end; unit++) {
        const long part = unit / SPLITS, split = unit % SPLITS, first_block = g.blocks * part / g.parts;
        float *const sums = (float *)call->shared + part * TILES * TILE_FLOATS;
        for (long number = first_block; number < g.blocks * (part + 1) / g.parts; number++) {
            block_at(&b, call, &g, number, (float *)scratch);
            for (long tile = (long)TILES * split / SPLITS; tile < (long)TILES * (split + 1) / SPLITS; tile++)
                run_tile(&b, tile, sums + tile * TILE_FLOATS, number == first_block);
        }
    }
}

static long units_of_sums(const cj_call *call)
{
    (void)call;
    return TILES;
}

/* Writes `vectors` for each factor of a tile, `lanes` of the last one. */
INLINE void write_tile(float *dw, const place *p, const float *total, int vectors, int lanes)
{
    enum { OUTPUT_STEP = RUNS * RUN_LENGTH };
    float *const run_of_group = dw + (long)p->group * GROUP_OUTPUTS * OUTPUT_STEP + (long)p->run * RUN_LENGTH;
    const int at = p->vector_block * (VECTORS * LANES);
    for (int o = 0; o < (vectors - 1) * LANES + lanes; o++)
        for (int f = p->repeated; f < FACTORS; f++)
            run_of_group[(long)(at + o) * OUTPUT_STEP + p->first_factor + f] = total[f * vectors * LANES + o];
}

/* Adds up the parts of a tile and writes it. */
static void run_sums(const cj_call *call, char *scratch, long first, long end)
{
    const long parts = grid_of(call).parts;
    for (long number = first; number < end; number++) {
        const place p = place_of(number);
        const float *sums = (const float *)call->shared + number * TILE_FLOATS;
        float total[TILE_FLOATS];
        for (int n = 0; n < TILE_FLOATS; n += LANES) {
            vec sum = load_f32(sums + n, LANES);
            for (long part = 1; part < parts; part++)
                sum += load_f32(sums + part * TILES * TILE_FLOATS + n, LANES);
            store_f32(total + n, sum, LANES);
        }
        write_tile((float *)call->arrays[2].data, &p, total, 2, 16);
    }
}

const cj_kernel weight_gradient_conv2d_nx16x32_3x3x32 = {
    .scratch_bytes = 74240,
    .shared_bytes = shared_bytes,
    .num_stages = 2,
    .stages = { { units, run }, { units_of_sums, run_sums } },
};
