/* The gradient of the greatest elements of windows of bf16: nx56 x 20 channels -> nx28, window 3x3, stride 2x2, padding (1, 1)
 *
 * What comes for a window goes in equal parts to those of its elements that are its maximum; taps in the padding are elements,
 * too. A window with NaN has no maximum among its elements: all of them get NaN, as with MLX.
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

typedef unsigned short half; /* the bits of an f16 or a bf16 */
typedef unsigned short halves __attribute__((vector_size(32)));
typedef unsigned short unaligned_halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef short signed_halves __attribute__((vector_size(32)));

INLINE halves load_halves(const half *from, int count)
{
    if (count == LANES)
        return *(const unaligned_halves *)from;
#if 16 == 16 && defined(__AVX512BW__) && defined(__AVX512VL__)
    return (halves)__builtin_ia32_loaddquhi256_mask((const void *)from, (signed_halves){0}, (1 << count) - 1);
#else
    halves h = {0};
    UNROLL for (int lane = 0; lane < LANES; lane++)
        if (lane < count)
            h[lane] = from[lane];
    return h;
#endif
}

INLINE void store_halves(half *to, halves h, int count)
{
    if (count == LANES) {
        *(unaligned_halves *)to = h;
        return;
    }
#if 16 == 16 && defined(__AVX512BW__) && defined(__AVX512VL__)
    __builtin_ia32_storedquhi256_mask((void *)to, (signed_halves)h, (1 << count) - 1);
#else
    UNROLL for (int lane = 0; lane < LANES; lane++)
        if (lane < count)
            to[lane] = h[lane];
#endif
}

/* bf16: the upper half of a float; conversions round to nearest, ties to even. In assembly where gcc has no single
 * instruction for `__builtin_convertvector`. */
INLINE vec widen_bf16(halves h)
{
#if 16 == 16 && defined(__AVX512F__) || 16 == 8 && defined(__AVX2__)
    mask bits;
    __asm__("vpmovzxwd %1, %0" : "=v"(bits) : "v"(h));
#else
    const mask bits = __builtin_convertvector(h, mask);
#endif
    return (vec)(bits << 16);
}

INLINE halves narrow_bf16(vec v)
{
    const mask bits = (mask)v;
#if 16 == 16 && defined(__AVX512BW__)
    typedef unsigned short vec_of_halves __attribute__((vector_size(64)));
    const vec_of_halves upper = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31 };
    const mask quiet_nans = splat_mask(0x22); /* NaNs of the operand become results, quiet */
    mask rounded = bits + 0x7fff;
    unsigned short odd;
    halves h;
    __asm__("vptestmd %2, %1, %0" : "=Yk"(odd) : "v"(bits), "v"(splat_mask(0x10000)));
    __asm__("vpaddd %2, %1, %0%{%3%}" : "+v"(rounded) : "v"(bits), "v"(splat_mask(0x8000)), "Yk"(odd));
    __asm__("vfixupimmps $0, %2, %1, %0" : "+v"(rounded) : "v"(v), "v"(quiet_nans));
    __asm__("vpermw %1, %2, %g0" : "=v"(h) : "v"(rounded), "v"(upper));
    return h;
#else
    mask rounded = bits + 0x7fff + ((bits >> 16) & 1);
    rounded |= (v != v) & 0x7fc00000;
    return __builtin_convertvector(rounded >> 16, halves);
#endif
}

INLINE vec round_bf16(vec v)
{
    return widen_bf16(narrow_bf16(v));
}

INLINE vec load_bf16(const half *from, int count)
{
    return widen_bf16(load_halves(from, count));
}

INLINE vec splat_bf16(const half *from)
{
    return widen_bf16(*from - (halves){0});
}

INLINE void store_bf16(half *to, vec v, int count)
{
    store_halves(to, narrow_bf16(v), count);
}

typedef half element;

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

/* The taps of an output that meet input: the first one's element of the image, and how many there are. */
typedef struct {
    long first;
    taps of;
} window;

/* `count` channels of an output: y, and what comes for it. */
INLINE void share(const element *x, const element *y, const element *dy, element *dx, taps of, int count)
{
    const vec greatest = load_bf16(y, count), one = splat(1), none = {0};
    const vec padding = splat(TAPS_D * TAPS_H * TAPS_W - of.d * of.h * of.w);
    vec ties = select(greatest == splat(-__builtin_inff()), padding, none);
    for (long d = 0; d < of.d; d++)
        for (long h = 0; h < of.h; h++) {
            const element *const row = x + d * PLANE_STEP + h * ROW_STEP;
            for (long w = 0; w < of.w; w++)
                ties += select(load_bf16(row + w * COLUMN_STEP, count) == greatest, one, none);
        }
    const vec part = round_bf16(load_bf16(dy, count) / ties);
    const vec rest = part * none; /* 0, or NaN */
    for (long d = 0; d < of.d; d++)
        for (long h = 0; h < of.h; h++) {
            const long row = d * PLANE_STEP + h * ROW_STEP;
            for (long w = 0; w < of.w; w++) {
                const vec of_x = load_bf16(x + row + w * COLUMN_STEP, count);
                element *const to = dx + row + w * COLUMN_STEP;
                store_bf16(to, load_bf16(to, count) + select(of_x == greatest, part, rest), count);
            }
        }
}

/* The taps of output `o` along an axis that meet input, and the first of them. */
INLINE long meeting(long o, long stride, long pad, long taps, long extent, long *first)
{
    const long from = o * stride - pad;
    *first = most(from, 0);
    return most(least(extent, from + taps) - *first, 0);
}

INLINE window window_at(const long *extents, long d, long h, long w)
{
    long from_d, from_h, from_w;
    const taps of = {
        meeting(d, STRIDE_D, PAD_D, TAPS_D, extents[0], &from_d),
        meeting(h, STRIDE_H, PAD_H, TAPS_H, extents[1], &from_h),
        meeting(w, STRIDE_W, PAD_W, TAPS_W, extents[2], &from_w),
    };
    return (window){from_d * PLANE_STEP + from_h * ROW_STEP + from_w * COLUMN_STEP, of};
}

/* `channels` channels of an output. */
INLINE void share_channels(const element *x, const element *y, const element *dy, element *dx, taps of, long channels)
{
    long c = 0;
    for (; c + LANES <= channels; c += LANES)
        share(x + c, y + c, dy + c, dx + c, of, LANES);
    if (c < channels)
        share(x + c, y + c, dy + c, dx + c, of, CHANNELS % LANES);
}

static long units(const cj_call *call)
{
    return call->batch * CHANNEL_BLOCKS;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const long extents[] = { 1, call->in_extent, 56 };
    const long depth = 1, height = call->out_extent, width = 28;
    for (long unit = first; unit < end; unit++) {
        const long image = unit / CHANNEL_BLOCKS, c = unit % CHANNEL_BLOCKS * CHANNEL_BLOCK;
        const long channels = least(CHANNEL_BLOCK, CHANNELS - c);
        element *array[4]; /* x, y, dy, dx */
        UNROLL for (int n = 0; n < 4; n++)
            array[n] = (element *)(call->arrays[n].data + image * call->arrays[n].batch_step) + c;
        for (long pixel = 0; pixel < extents[0] * extents[1] * extents[2]; pixel++)
            memset(array[3] + pixel * COLUMN_STEP, 0, channels * sizeof(element));
        long output = 0;
        for (long d = 0; d < depth; d++)
            for (long h = 0; h < height; h++)
                for (long w = 0; w < width; w++, output += COLUMN_STEP) {
                    const window at = window_at(extents, d, h, w);
                    share_channels(array[0] + at.first, array[1] + output, array[2] + output, array[3] + at.first, at.of, channels);
                }
    }
}

const cj_kernel gradient_of_pool2d_nx56x20 = {
    .num_stages = 1,
    .stages = { { units, run } },
};
