/* 2D convolution of f32: nx56 x 64 channels -> nx28 x 64, kernel 5x5, stride 2x2, padding (2, 2) and (2, 2)
 *
 * Direct convolution. A tile of 1 x 14 outputs by 32 channels is summed in registers: a packed
 * weight vector is loaded once for all of its pixels, an input element is broadcast once for all of its channels.
 * Taps that lie side by side in memory are one run: channels and kernel columns are one loop.
 * Taps that meet only padding are left out. A block of outputs that reads padding and input in one run reads a copy
 * with zeros around it.
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
    CHANNELS = 64, OUT_CHANNELS = 64,
    GROUPS = 1, GROUP_CHANNELS = CHANNELS / GROUPS, GROUP_OUTPUTS = OUT_CHANNELS / GROUPS,
    PLANE_STEP = 0, ROW_STEP = 3584, /* of the input, in elements */
    OUT_HEIGHT = 1, OUT_WIDTH = 28, /* 1 for the outermost axis: no address depends on its extent */
    STRIDE_D = 1, STRIDE_H = 2, STRIDE_W = 2, /* between the inputs of neighbouring outputs of a phase */
    STEP_D = 1, STEP_H = 1, STEP_W = 1, /* between the inputs of neighbouring taps */
    PERIOD_D = 1, PERIOD_H = 1, PERIOD_W = 1, /* phases of each axis, taken by its outputs in turn */
    TAPS_H = 5, TAPS_W = 5, /* of all phases */
    GROUP_WIDTH = 64, /* outputs of a group, with those that fill up its last vector */

    TILE_ROWS = 1, TILE_COLUMNS = 14, PIXELS = TILE_ROWS * TILE_COLUMNS,
    ROW_BLOCK = 3, COLUMN_BLOCK = 14, /* outputs of a block */
    COPIED_ROW = 1984, COPIED_PLANE = 9 * COPIED_ROW, /* of a copy, in elements */
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
    {5, -2, 0},
};
static const phase phases_w[] = {
    {5, -2, 0},
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
        .in = { 1, call->in_extent, 56 },
        .out = { 1, call->out_extent, 28 },
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

enum {
    SPLITS = 1, /* shares of the output channels that are work by themselves */
    VECTORS = 2, BLOCK = VECTORS * LANES, /* output channels at a time */
    GROUP_BLOCKS = (GROUP_OUTPUTS + BLOCK - 1) / BLOCK, BLOCKS = GROUPS * GROUP_BLOCKS,
    RUNS_AT_ONCE = 5, TERMS_AT_ONCE = 320, IS_PARTED = 0, /* sums are set aside after so many terms */
    TILE_FLOATS = PIXELS * BLOCK, BLOCK_FLOATS = ROW_BLOCK * COLUMN_BLOCK * BLOCK,
    PREFETCH = 2048, /* floats ahead of the weights in use */
    AT_ONCE = 1, /* input channels in a term */
};

/* Runs of taps, or some terms of one. A chain of additions that goes through all of them would lose digits. */
typedef struct {
    position tap; /* with which the first run begins */
    int number, first_run, end_run, first_term, end_term;
    int is_first, is_last;
} part;

INLINE int parts_of_terms(const block *b)
{
    return (run_length(b) + TERMS_AT_ONCE - 1) / TERMS_AT_ONCE;
}

INLINE part part_number(const block *b, int number)
{
    if (runs_of(b) * run_length(b) == 0)
        return (part){.is_first = 1, .is_last = 1};
    const int run = number / parts_of_terms(b) * RUNS_AT_ONCE, term = number % parts_of_terms(b) * TERMS_AT_ONCE;
    part p = {
        .number = number,
        .first_run = run,
        .end_run = least(run + RUNS_AT_ONCE, runs_of(b)),
        .first_term = term,
        .end_term = least(term + TERMS_AT_ONCE, run_length(b)),
        .is_first = number == 0,
    };
    p.is_last = p.end_run == runs_of(b) && p.end_term == run_length(b);
    p.tap = (position){run / b->taps.h, run % b->taps.h, 0};
    return p;
}

/* The epilogue of a tile, out of registers: `vectors` for each of its outputs, `lanes` of the last one. */
INLINE void finish_tile(const block *b, const vec *total, int row, int column, int o, int vectors, int lanes)
{
    const image of = b->of; /* here and in `at`: what no store can change */
    const output at = output_at(b, row, column);
    per_channel with[VECTORS];
    UNROLL for (int v = 0; v < vectors; v++)
        with[v] = load_per_channel(&of, o + v * LANES, v < vectors - 1 ? LANES : lanes);
    UNROLL for (int pixel = 0; pixel < PIXELS; pixel++) {
        const long h = at.h + pixel / TILE_COLUMNS * PERIOD_H, w = at.w + pixel % TILE_COLUMNS * PERIOD_W;
        UNROLL for (int v = 0; v < vectors; v++)
            finish_with(&with[v], &of, total[pixel * vectors + v], at.d, h, w, o + v * LANES, v < vectors - 1 ? LANES : lanes);
    }
}

/* Sums a part of one tile; after the last part finishes it, before sets it aside. Not inlined: among its caller's values
 * an accumulator would be spilled. */
static __attribute__((noinline)) void tile(const block *b, const part *p, const float *restrict weights, int group,
                                           int row, int column, int o, float *partial)
{
    enum { TILE_VECTORS = 2, TILE_LANES = 16, SUMS = PIXELS * TILE_VECTORS };
    const float *const x = input_of(b, row, column, group);
    const position in = position_of(b, row, column);
    vec sum[SUMS];
    UNROLL for (int n = 0; n < SUMS; n++)
        sum[n] = IS_PARTED && !p->is_first ? load_f32(partial + n * LANES, LANES) : (vec){0};
    position tap = p->tap;
    for (int run = p->first_run; run < p->end_run; run++, tap = next_run(b, tap)) {
        if (!meets_input(b, in, tap))
            continue;
        const float *from = x + offset_of(b, tap) + p->first_term;
        const float *weight = weights + ((long)run * run_length(b) + p->first_term) / AT_ONCE * (TILE_VECTORS * LANES);
        for (int terms = p->end_term - p->first_term; terms > 0; terms -= AT_ONCE, from += AT_ONCE, weight += TILE_VECTORS * LANES) {
            vec w[TILE_VECTORS];
            UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
                w[v] = load_f32(weight + v * LANES, LANES);
                __builtin_prefetch(weight + v * LANES + PREFETCH);
            }
            UNROLL for (int pixel = 0; pixel < PIXELS; pixel++) {
                const float *element = from + (pixel / TILE_COLUMNS * b->row_step + pixel % TILE_COLUMNS * (STRIDE_W * PIXEL_STEP));
                UNROLL for (int v = 0; v < TILE_VECTORS; v++)
                    sum[pixel * TILE_VECTORS + v] += *element * w[v];
            }
        }
    }
    if (IS_PARTED && !p->is_last) {
        UNROLL for (int n = 0; n < SUMS; n++)
            store_f32(partial + n * LANES, sum[n], LANES);
        return;
    }
    vec total[SUMS];
    UNROLL for (int n = 0; n < SUMS; n++)
        total[n] = sum[n];
    finish_tile(b, total, row, column, o, TILE_VECTORS, TILE_LANES);
}

/* A part of all tiles of a block of outputs, for one block of their channels. */
static void run_tiles(const block *b, const part *p, const float *packed, int number, float *partial)
{
    const int group = number / GROUP_BLOCKS, of_group = number % GROUP_BLOCKS, o = group * GROUP_OUTPUTS + of_group * BLOCK;
    const long taps = (long)b->taps.d * b->taps.h * b->taps.w;
    const float *weights = packed + b->weights + ((long)group * GROUP_WIDTH + of_group * BLOCK) * taps * GROUP_CHANNELS / AT_ONCE;
    for (int r = 0; r < b->extent.h; r += TILE_ROWS)
        for (int c = 0; c < b->extent.w; c += TILE_COLUMNS, partial += TILE_FLOATS) {
            /* the last tiles overlap those before them */
            const int row = least(r, b->extent.h - TILE_ROWS), column = least(c, b->extent.w - TILE_COLUMNS);
            tile(b, p, weights, group, row, column, o, partial);
        }
}

static long units(const cj_call *call)
{
    const grid g = grid_of(call);
    return call->batch * g.places * SPLITS;
}

/* Shares of the channels change fastest: the input is what neighbours share. */
static void run(const cj_call *call, char *scratch, long first, long end)
{
    const grid g = grid_of(call);
    const long places = call->batch * g.places;
    const float *packed = NULL;
    block b = {.extent = {0}};
    long place_of_b = -1;
    for (long unit = first; unit < end; unit++) {
        const long place = unit / SPLITS % places, split = unit % SPLITS;
        if (place != place_of_b) {
            packed = (const float *)(call->arrays[1].data + place / g.places * call->arrays[1].batch_step);
            b = block_at(call, &g, place / g.places, place % g.places, (float *)(scratch));
        }
        place_of_b = place;
        if (!b.extent.d)
            continue;
        for (int n = BLOCKS * split / SPLITS; n < BLOCKS * (split + 1) / SPLITS; n++) {
            for (part p = {0}; !p.is_last; p.number++) {
                p = part_number(&b, p.number);
                run_tiles(&b, &p, packed, n, (float *)scratch);
            }
        }
    }
}

const cj_kernel conv2d_nx56x64_5x5x64 = {
    .scratch_bytes = 71424,
    .num_stages = 1,
    .stages = { { units, run } },
};
