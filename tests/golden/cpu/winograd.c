/* 2D convolution of f32: nx56 x 64 channels -> nx56 x 64, kernel 3x3, stride 1x1, padding (1, 1) and (1, 1)
 *
 * Winograd's algorithm (Lavin & Gray, 2015). Outputs come in tiles of 4 x 4, each from 6 x 6 inputs, by 36 multiplications
 * for each channel instead of 144: with matrices A, B, G for height and width (convjit/bilinear.py),
 *
 *     V = B^T inputs B    U = G weights G^T    M = sum over channels of V * U, position by position    outputs = A^T M A
 *
 * so that for each of the 36 positions M of many tiles is one product of matrices, tiles x channels by channels x outputs.
 * V of 6 tiles and M of 64 outputs stay in the second-level cache. Weights come as U, 4 times as large
 * as they are.
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
    HEIGHT = 1, WIDTH = 56, CHANNELS = 64, /* of the input */
    OUT_HEIGHT = 1, OUT_WIDTH = 56, OUT_CHANNELS = 64, /* extents are 1 for the outermost axis: no address depends on it */
    TAPS_D = 1, STRIDE_D = 1, OFFSET_D = 0, STEP_D = 1, /* along the depth taps are summed like channels */

    READS_H = 6, READS_W = 6, /* inputs of a tile */
    POSITIONS_H = 6, POSITIONS_W = 6, POSITIONS = POSITIONS_H * POSITIONS_W,
    MADE_H = 4, MADE_W = 4, /* outputs of a tile */
    ELEMENTS_H = 3, ELEMENTS_W = 3, /* of the kernel */
    ADVANCE_H = 4, ADVANCE_W = 4, /* inputs from tile to tile */
    OFFSET_H = -1, OFFSET_W = -1, /* the first input; negative in the padding */
    SPREAD_H = 1, SPREAD_W = 1, /* between neighbours of a tile: the dilation */
    OUT_STEP_H = 1, OUT_STEP_W = 1, /* between outputs of a tile */

    TILES = 6, GROUP = 6, /* tiles whose V is at hand; of these, tiles summed in registers */
    VECTORS = 4, BLOCK = VECTORS * LANES, BLOCKS = (OUT_CHANNELS + BLOCK - 1) / BLOCK, SPLITS = 1, /* of output channels; units that share these */
    LAST_LANES = (OUT_CHANNELS - 1) % LANES + 1,
    SUMMED = CHANNELS, USED_LANES = SUMMED < LANES ? SUMMED : LANES,
    TERMS = TAPS_D * SUMMED, CHUNK = 64, /* of a sum; of those in one chain of additions, with their U at hand */

    POSITION_WEIGHTS = TERMS * BLOCK, /* of one position: [tap along the depth][channel][output] */

    /* steps between rows and between positions, in floats; odd numbers of cache lines fill all sets of a cache */
    V_ROW = 80, V_POSITION = 496, V_SIZE = POSITIONS * V_POSITION,
    M_POSITION = 400, M_SIZE = POSITIONS * M_POSITION,
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

INLINE void finish(const image *of, vec sum, long d, long h, long w, long o, int count)
{
    const per_channel with = load_per_channel(of, o, count);
    finish_with(&with, of, sum, d, h, w, o, count);
}

/* A tile: its image, and the place of its first output. Tile number t along an axis of dilation s takes every s-th
 * output from (t / s) * s tiles + t % s on. */
typedef struct {
    long n;
    int d, h, w;
    int from_h, from_w; /* its first input */
} place;

INLINE int start(int tile, int tile_size, int spread)
{
    return tile / spread * (tile_size * spread) + tile % spread;
}

INLINE int tiles_along(int outputs, int tile_size, int spread)
{
    return ((outputs + spread - 1) / spread + tile_size - 1) / tile_size * spread;
}

INLINE int tiles_h(const cj_call *call)
{
    return tiles_along(call->out_extent, MADE_H, SPREAD_H);
}

INLINE int tiles_w(const cj_call *call)
{
    return tiles_along(56, MADE_W, SPREAD_W);
}

INLINE long tiles_of_image(const cj_call *call)
{
    return (long)1 * tiles_h(call) * tiles_w(call);
}

INLINE long tiles_of(const cj_call *call)
{
    return call->batch * tiles_of_image(call);
}

INLINE place place_of(const cj_call *call, long tile)
{
    const int of_image = tile % tiles_of_image(call), h = of_image / tiles_w(call) % tiles_h(call), w = of_image % tiles_w(call);
    return (place){
        .n = tile / tiles_of_image(call), .d = of_image / (tiles_h(call) * tiles_w(call)),
        .h = start(h, MADE_H, SPREAD_H), .w = start(w, MADE_W, SPREAD_W),
        .from_h = start(h, ADVANCE_H, SPREAD_H) + OFFSET_H, .from_w = start(w, ADVANCE_W, SPREAD_W) + OFFSET_W,
    };
}

INLINE int is_inside(const cj_call *call, int d, int h, int w)
{
    return d >= 0 && d < 1 && h >= 0 && h < call->in_extent && w >= 0 && w < 56;
}

/* V of one tile: v[position][tap along the depth][channel]. */
static __attribute__((noinline)) void transform_input(const cj_call *call, long tile, float *v)
{
    static const float zeros[CHANNELS];
    const place at = place_of(call, tile);
    const float *x = (const float *)(call->arrays[0].data + at.n * call->arrays[0].batch_step);
    for (int tap = 0; tap < TAPS_D; tap++, v += SUMMED) {
        const int d = at.d * STRIDE_D + OFFSET_D + tap * STEP_D;
        const float *from[READS_H][READS_W];
        for (int i = 0; i < READS_H; i++)
            for (int j = 0; j < READS_W; j++) {
                const int h = at.from_h + i * SPREAD_H, w = at.from_w + j * SPREAD_W;
                from[i][j] = is_inside(call, d, h, w) ? x + (((long)d * HEIGHT + h) * WIDTH + w) * CHANNELS : zeros;
            }
        for (int first = 0; first < SUMMED; first += LANES) {
            const int c = least(first, SUMMED - USED_LANES); /* the last vector overlaps the one before */
            vec rows[POSITIONS_H][READS_W];
            UNROLL for (int j = 0; j < READS_W; j++) {
                const vec x0 = load_f32(from[0][j] + c, USED_LANES);
                const vec x1 = load_f32(from[1][j] + c, USED_LANES);
                const vec x2 = load_f32(from[2][j] + c, USED_LANES);
                const vec x3 = load_f32(from[3][j] + c, USED_LANES);
                const vec x4 = load_f32(from[4][j] + c, USED_LANES);
                const vec x5 = load_f32(from[5][j] + c, USED_LANES);
                const vec same1 = -2.25f * x2 + x4;
                const vec other1 = -1.6875f * x1 + 0.75f * x3;
                const vec y1 = same1 + other1;
                const vec y2 = same1 - other1;
                const vec same3 = -0.5625f * x2 + x4;
                const vec other3 = -0.84375f * x1 + 1.5f * x3;
                const vec y3 = same3 + other3;
                const vec y4 = same3 - other3;
                const vec y0 = -2.8125f * x2 + 1.265625f * x0 + x4;
                const vec y5 = -2.8125f * x3 + 1.265625f * x1 + x5;
                rows[0][j] = y0;
                rows[1][j] = y1;
                rows[2][j] = y2;
                rows[3][j] = y3;
                rows[4][j] = y4;
                rows[5][j] = y5;
            }
            UNROLL for (int i = 0; i < POSITIONS_H; i++) {
                float *to = v + i * POSITIONS_W * V_POSITION + c;
                const vec x0 = rows[i][0];
                const vec x1 = rows[i][1];
                const vec x2 = rows[i][2];
                const vec x3 = rows[i][3];
                const vec x4 = rows[i][4];
                const vec x5 = rows[i][5];
                const vec same1 = -2.25f * x2 + x4;
                const vec other1 = -1.6875f * x1 + 0.75f * x3;
                const vec y1 = same1 + other1;
                const vec y2 = same1 - other1;
                const vec same3 = -0.5625f * x2 + x4;
                const vec other3 = -0.84375f * x1 + 1.5f * x3;
                const vec y3 = same3 + other3;
                const vec y4 = same3 - other3;
                const vec y0 = -2.8125f * x2 + 1.265625f * x0 + x4;
                const vec y5 = -2.8125f * x3 + 1.265625f * x1 + x5;
                store_f32(to + 0 * V_POSITION, y0, LANES);
                store_f32(to + 1 * V_POSITION, y1, LANES);
                store_f32(to + 2 * V_POSITION, y2, LANES);
                store_f32(to + 3 * V_POSITION, y3, LANES);
                store_f32(to + 4 * V_POSITION, y4, LANES);
                store_f32(to + 5 * V_POSITION, y5, LANES);
            }
        }
    }
}

/* A tile that is not there repeats the last one. */
INLINE long tile_there(const cj_call *call, long tile)
{
    return tile < tiles_of(call) ? tile : tiles_of(call) - 1;
}

/* V of a block of tiles. */
INLINE void transform_inputs(const cj_call *call, long first_tile, float *v)
{
    for (int t = 0; t < TILES; t++)
        transform_input(call, tile_there(call, first_tile + t), v + t * V_ROW);
}

/* One position of M: m[tile][output] of a group of tiles, the sum over `count` terms; `adds` those before. Meanwhile
 * as many weights are fetched from `ahead`. */
static __attribute__((noinline)) void multiply(const float *restrict v, const float *restrict u, float *restrict m, int count, int adds, const float *ahead)
{
    vec sum[GROUP][VECTORS];
    UNROLL for (int tile = 0; tile < GROUP; tile++)
        UNROLL for (int i = 0; i < VECTORS; i++)
            sum[tile][i] = (vec){0};
    for (int term = 0; term < count; term++, u += BLOCK) {
        vec weight[VECTORS];
        UNROLL for (int i = 0; i < VECTORS; i++) {
            weight[i] = load_f32(u + i * LANES, LANES);
            __builtin_prefetch(ahead + term * BLOCK + i * LANES);
        }
        UNROLL for (int tile = 0; tile < GROUP; tile++)
            UNROLL for (int i = 0; i < VECTORS; i++)
                sum[tile][i] += v[tile * V_ROW + term] * weight[i];
    }
    if (adds) {
        UNROLL for (int tile = 0; tile < GROUP; tile++)
            UNROLL for (int i = 0; i < VECTORS; i++)
                sum[tile][i] += load_f32(m + tile * BLOCK + i * LANES, LANES);
    }
    UNROLL for (int tile = 0; tile < GROUP; tile++)
        UNROLL for (int i = 0; i < VECTORS; i++)
            store_f32(m + tile * BLOCK + i * LANES, sum[tile][i], LANES);
}

typedef struct {
    int element, input; /* of the kernel; the input that the first output of its phase meets there */
} tap;
enum { PHASES_H = 1, PHASE_STRIDE_H = 1, MOST_TAPS_H = 3 };
static const tap taps_h[PHASES_H][MOST_TAPS_H] = {
    { { 0, -1 }, { 1, 0 }, { 2, 1 }, },
};
enum { PHASES_W = 1, PHASE_STRIDE_W = 1, MOST_TAPS_W = 3 };
static const tap taps_w[PHASES_W][MOST_TAPS_W] = {
    { { 0, -1 }, { 1, 0 }, { 2, 1 }, },
};

/* The outputs of one tile by the definition, with the weights as they were. */
static __attribute__((noinline)) void convolve(const cj_call *call, const float *x, const float *weights, int at_d, int first_h, int first_w, vec made[MADE_H][MADE_W])
{
    memset(made, 0, MADE_H * MADE_W * sizeof(vec));
    for (int tap_d = 0; tap_d < TAPS_D; tap_d++)
        for (int c = 0; c < CHANNELS; c++) {
            vec element[ELEMENTS_H][ELEMENTS_W];
            vec rows[POSITIONS_H][ELEMENTS_W];
            for (int i = 0; i < POSITIONS_H; i++) {
                const float *from = weights + i * POSITIONS_W * (long)POSITION_WEIGHTS + (tap_d * CHANNELS + c) * BLOCK;
                const vec x0 = load_f32(from + 0 * POSITION_WEIGHTS, LANES);
                const vec x1 = load_f32(from + 1 * POSITION_WEIGHTS, LANES);
                const vec x5 = load_f32(from + 5 * POSITION_WEIGHTS, LANES);
                const vec y1 = -0.75f * x5 + -1.33333337f * x0 + 1.33333337f * x1;
                rows[i][0] = x0;
                rows[i][1] = y1;
                rows[i][2] = x5;
            }
            for (int j = 0; j < ELEMENTS_W; j++) {
                const vec x0 = rows[0][j];
                const vec x1 = rows[1][j];
                const vec x5 = rows[5][j];
                const vec y1 = -0.75f * x5 + -1.33333337f * x0 + 1.33333337f * x1;
                element[0][j] = x0;
                element[1][j] = y1;
                element[2][j] = x5;
            }
            for (int i = 0; i < MADE_H; i++)
                for (int j = 0; j < MADE_W; j++) {
                    const int out_h = first_h + i * OUT_STEP_H, out_w = first_w + j * OUT_STEP_W;
                    for (const tap *tap_h = taps_h[out_h % PHASES_H]; tap_h < taps_h[out_h % PHASES_H] + MOST_TAPS_H; tap_h++)
                        for (const tap *tap_w = taps_w[out_w % PHASES_W]; tap_w < taps_w[out_w % PHASES_W] + MOST_TAPS_W; tap_w++) {
                            const int d = at_d * STRIDE_D + OFFSET_D + tap_d * STEP_D;
                            const int h = out_h / PHASES_H * PHASE_STRIDE_H + tap_h->input, w = out_w / PHASES_W * PHASE_STRIDE_W + tap_w->input;
                            if (tap_h->element < 0 || tap_w->element < 0 || !is_inside(call, d, h, w))
                                continue;
                            made[i][j] += splat_f32(x + (((long)d * HEIGHT + h) * WIDTH + w) * CHANNELS + c) * element[tap_h->element][tap_w->element];
                        }
                }
        }
}

INLINE void finish_vector(const image *of, vec sum, long d, long h, long w, long o)
{
    if (LAST_LANES < LANES && o + LANES > OUT_CHANNELS)
        finish(of, sum, d, h, w, o, LAST_LANES);
    else
        finish(of, sum, d, h, w, o, LANES);
}

INLINE int all_finite(vec v)
{
    const mask finite = v < __builtin_inff();
    int lanes[LANES], all = -1;
    memcpy(lanes, &finite, sizeof lanes);
    UNROLL for (int lane = 0; lane < LANES; lane++)
        all &= lanes[lane];
    return all;
}

/* Finishes the outputs of a block of channels, of all tiles of M. An infinity or NaN of the input is now in all outputs
 * of its tile, and numbers near the end of the range have left their rounding errors there: those are done by definition. */
static __attribute__((noinline)) void transform_outputs(const cj_call *call, long first_tile, const float *m, int block, const float *weights)
{
    const cj_array *arrays = call->arrays;
    const int vectors = least(VECTORS, (OUT_CHANNELS - block * BLOCK + LANES - 1) / LANES);
    for (long tile = first_tile; tile < first_tile + TILES && tile < tiles_of(call); tile++, m += BLOCK) {
        const place at = place_of(call, tile);
        const long n = at.n;
        const image of = {
            .extra0 = (const float *)(arrays[2].data + n * arrays[2].batch_step),
            .result0 = (float *)(arrays[3].data + n * arrays[3].batch_step),
        };
        const int first_h = at.h, first_w = at.w;
        const int rows = least(MADE_H, (call->out_extent - first_h + OUT_STEP_H - 1) / OUT_STEP_H);
        const int columns = least(MADE_W, (56 - first_w + OUT_STEP_W - 1) / OUT_STEP_W);
        for (int v = 0; v < vectors; v++) {
            vec between[MADE_H][POSITIONS_W], made[MADE_H][MADE_W], energy = {0};
            UNROLL for (int j = 0; j < POSITIONS_W; j++) {
                const vec x0 = load_f32(m + (0 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec x1 = load_f32(m + (1 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec x2 = load_f32(m + (2 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec x3 = load_f32(m + (3 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec x4 = load_f32(m + (4 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec x5 = load_f32(m + (5 * POSITIONS_W + j) * M_POSITION + v * LANES, LANES);
                const vec sum1 = x1 + x2;
                const vec difference1 = x1 - x2;
                const vec sum3 = x3 + x4;
                const vec difference3 = x3 - x4;
                const vec y0 = -0.526748955f * sum1 + 0.790123463f * x0 + 0.131687239f * sum3;
                const vec y1 = -0.395061731f * difference1 + 0.197530866f * difference3;
                const vec y2 = -0.296296299f * sum1 + 0.296296299f * sum3;
                const vec y3 = -0.222222224f * difference1 + 0.444444448f * difference3 + x5;
                between[0][j] = y0;
                between[1][j] = y1;
                between[2][j] = y2;
                between[3][j] = y3;
            }
            UNROLL for (int i = 0; i < MADE_H; i++) {
                const vec x0 = between[i][0];
                const vec x1 = between[i][1];
                const vec x2 = between[i][2];
                const vec x3 = between[i][3];
                const vec x4 = between[i][4];
                const vec x5 = between[i][5];
                const vec sum1 = x1 + x2;
                const vec difference1 = x1 - x2;
                const vec sum3 = x3 + x4;
                const vec difference3 = x3 - x4;
                const vec y0 = -0.526748955f * sum1 + 0.790123463f * x0 + 0.131687239f * sum3;
                const vec y1 = -0.395061731f * difference1 + 0.197530866f * difference3;
                const vec y2 = -0.296296299f * sum1 + 0.296296299f * sum3;
                const vec y3 = -0.222222224f * difference1 + 0.444444448f * difference3 + x5;
                made[i][0] = y0;
                energy += y0 * y0;
                made[i][1] = y1;
                energy += y1 * y1;
                made[i][2] = y2;
                energy += y2 * y2;
                made[i][3] = y3;
                energy += y3 * y3;
            }
            if (!all_finite(energy)) {
                const float *x = (const float *)(arrays[0].data + n * arrays[0].batch_step);
                convolve(call, x, weights + v * LANES, at.d, first_h, first_w, made);
            }
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < columns; j++)
                    finish_vector(&of, made[i][j], at.d, first_h + i * OUT_STEP_H, first_w + j * OUT_STEP_W, (long)block * BLOCK + v * LANES);
        }
    }
}

/* The outputs of a block of channels for a block of tiles. */
static void run_block(const cj_call *call, long first_tile, int block, const float *v, float *m)
{
    const float *weights = (const float *)call->arrays[1].data + block * (POSITIONS * (long)POSITION_WEIGHTS);
    for (int position = 0; position < POSITIONS; position++)
        for (int first = 0; first < TERMS; first += CHUNK) {
            const float *u = weights + position * (long)POSITION_WEIGHTS + first * BLOCK;
            for (int tile = 0; tile < TILES; tile += GROUP)
                multiply(v + position * V_POSITION + tile * V_ROW + first, u, m + position * M_POSITION + tile * BLOCK, least(CHUNK, TERMS - first), first > 0, u + CHUNK * BLOCK);
        }
    transform_outputs(call, first_tile, m, block, weights);
}

static long tile_blocks(const cj_call *call)
{
    return (tiles_of(call) + TILES - 1) / TILES;
}

/* Blocks of tiles, each in SPLITS units with some of the blocks of channels. */
static long units(const cj_call *call)
{
    return tile_blocks(call) * SPLITS;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    float *v = (float *)scratch, *m = v + V_SIZE;
    for (long unit = first; unit < end; unit++) {
        const long tile_block = unit / SPLITS, split = unit % SPLITS;
        if (unit == first || split == 0)
            transform_inputs(call, tile_block * TILES, v);
        for (int block = BLOCKS * split / SPLITS; block < BLOCKS * (split + 1) / SPLITS; block++)
            run_block(call, tile_block * TILES, block, v, m);
    }
}

const cj_kernel conv2d_nx56x64_3x3x64 = {
    .scratch_bytes = (V_SIZE + M_SIZE) * sizeof(float),
    .num_stages = 1,
    .stages = { { units, run } },
};
