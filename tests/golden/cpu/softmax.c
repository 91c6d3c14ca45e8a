/* exp(x - max) / sum of rows of 99 f32, each while it is in the first-level cache. */
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

/* Elementary functions. Zeros with their signs, infinities, NaN and subnormal numbers are as in C's <math.h>.
 * Bounds in units in the last place, over all floats, to which tests/numerics/test_functions.py holds them:
 *
 *     floor 0.0  ceil 0.0  sqrt 0.0 (beyond rounding)  exp 1.1  expm1 1.6  sigmoid 2.5  tanh 6.0  erf 6.0
 *     log 0.9  log1p 1.6  log2 1.7  log10 2.0  sin 1.6  cos 1.6  tan 3.4  pow 0.8
 */
INLINE vec vec_abs(vec x)
{
    return (vec)((mask)x & 0x7fffffff);
}

INLINE vec vec_copysign(vec magnitude, vec sign)
{
    return (vec)(((mask)magnitude & 0x7fffffff) | ((mask)sign & ~0x7fffffff));
}

INLINE vec vec_roundeven(vec x)
{
    vec rounded = (vec_abs(x) + 0x1p23f) - 0x1p23f;
    return vec_copysign(select(vec_abs(x) < 0x1p23f, rounded, x), x);
}

/* v 2^n for whole n between -252 and 254, rounded once. */
INLINE vec vec_scale(vec v, vec n)
{
#if 16 == 16 && defined(__AVX512F__)
    return __builtin_ia32_scalefps512_mask(v, n, v, 0xffff, 4);
#else
    const mask whole = __builtin_convertvector(n, mask), part = whole >> 1;
    return v * (vec)((part + 127) << 23) * (vec)((whole - part + 127) << 23);
#endif
}

/* x = n ln 2 + r with |r| <= ln 2 / 2; returns e^r - 1. */
INLINE vec vec_exp_parts(vec x, vec *n)
{
    *n = (x * 1.44269504f + 0x1.8p23f) - 0x1.8p23f; /* the nearest whole number */
    const vec r = (x - *n * 0.693359375f) + *n * 2.12194440e-4f; /* ln 2 in two parts: the first product is exact */
    vec p = r * 1.3814221759e-3f + 8.3688986801e-3f;
    p = p * r + 4.1668405724e-2f;
    p = p * r + 1.6666519130e-1f;
    p = p * r + 4.9999993346e-1f;
    return p * (r * r) + r;
}

INLINE vec vec_exp(vec x)
{
    x = select(x > 89.0f, splat(89.0f), x); /* NaN passes through */
    x = select(x < -104.0f, splat(-104.0f), x);
    vec n;
    const vec p = vec_exp_parts(x, &n);
    return vec_scale(p + 1.0f, n);
}

typedef float element;

enum {
    COLUMNS = 99,
    WHOLE = COLUMNS / LANES * LANES, /* columns in full vectors */
    LEFT = COLUMNS % LANES,
    ROW_BLOCK = 82, /* rows of a unit */
};

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

/* NaN may get lost: it comes back with its own exponential. */
INLINE vec greater(vec a, vec b)
{
    return select(a > b, a, b);
}

INLINE float greatest_lane(vec v)
{
    v = greater(v, SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    v = greater(v, SHUFFLE(v, v, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3));
    v = greater(v, SHUFFLE(v, v, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1));
    v = greater(v, SHUFFLE(v, v, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0));
    return v[0];
}

INLINE float sum_of_lanes(vec v)
{
    v += SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += SHUFFLE(v, v, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3);
    v += SHUFFLE(v, v, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1);
    v += SHUFFLE(v, v, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0);
    return v[0];
}

/* The last, narrow vector of a row; `filler` in the lanes behind it. */
INLINE vec last_of(const element *x, float filler)
{
    const mask lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    return select(lane < LEFT, load_f32(x + WHOLE, LEFT), splat(filler));
}

static void normalise(const element *x, element *y, float *exponentials)
{
    vec greatest = splat(-__builtin_inff());
    for (int c = 0; c < WHOLE; c += LANES)
        greatest = greater(greatest, load_f32(x + c, LANES));
    greatest = greater(greatest, last_of(x, -__builtin_inff()));
    const vec from = splat(greatest_lane(greatest));
    vec sum = {0};
    for (int c = 0; c < WHOLE; c += LANES) {
        const vec e = vec_exp(load_f32(x + c, LANES) - from);
        store_f32(exponentials + c, e, LANES);
        sum += e;
    }
    const vec last = vec_exp(last_of(x, -__builtin_inff()) - from);
    sum += last;
    const vec scale = splat(1 / sum_of_lanes(sum));
    for (int c = 0; c < WHOLE; c += LANES)
        store_f32(y + c, load_f32(exponentials + c, LANES) * scale, LANES);
    store_f32(y + WHOLE, last * scale, LEFT);
}

static long units(const cj_call *call)
{
    return (call->in_extent + ROW_BLOCK - 1) / ROW_BLOCK;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const element *const x = (const element *)call->arrays[0].data;
    element *const y = (element *)call->arrays[1].data;
    const long last = end * ROW_BLOCK < call->in_extent ? end * ROW_BLOCK : call->in_extent;
    for (long row = first * ROW_BLOCK; row < last; row++)
        normalise(x + row * COLUMNS, y + row * COLUMNS, (float *)scratch);
}

const cj_kernel softmax_99 = {
    .scratch_bytes = COLUMNS * sizeof(float),
    .num_stages = 1,
    .stages = { { units, run } },
};
