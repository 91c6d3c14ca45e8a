/* Elementwise ops on nx20: reads nx20 of f32, 1x20 of f32, 1x20 of f32; gives all elements, sums over all rows.
 *
 * Units are blocks of rows and columns; a vector's columns are done for all rows of a unit, so that what is the same in every
 * row is loaded and computed once.
 * Each block of rows has its own sums, of even and of odd rows of a chain, and of its chains; the second stage adds them up
 * in order, in double precision: the number of threads changes nothing.
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

enum {
    COLUMNS = 20,
    ROW_BLOCK = 256, COLUMN_BLOCK = 32, COLUMN_BLOCKS = (COLUMNS + COLUMN_BLOCK - 1) / COLUMN_BLOCK,
    SUMS = 1,
    CHAIN = 32, /* rows that are added up one after the other, half of them each: longer chains lose digits */
};

INLINE long least(long a, long b)
{
    return a < b ? a : b;
}

/* Where a vector of columns begins in each array, and what is the same in all of its rows. */
typedef struct {
    const float *x0;
    float *y0;
    vec e1;
    vec e2;
    vec v0;
} columns;

INLINE columns columns_at(const cj_array *arrays, long column, int count)
{
    const float *x1 = (const float *)arrays[1].data + column;
    const vec e1 = load_f32(x1, count);
    const float *x2 = (const float *)arrays[2].data + column;
    const vec e2 = load_f32(x2, count);
    const vec v0 = e1 * e2;
    (void)count;
    (void)column;
    return (columns){
        .x0 = (const float *)arrays[0].data + column,
        .y0 = (float *)arrays[3].data + column,
        .e1 = e1,
        .e2 = e2,
        .v0 = v0,
    };
}

/* `count` lanes of a row. */
INLINE void element(const columns *at, long row, int count, vec *sums)
{
    const vec e0 = load_f32(at->x0 + row * 20, count);
    const vec e1 = at->e1;
    const vec e2 = at->e2;
    const vec v0 = at->v0;
    (void)e1;
    (void)e2;
    (void)v0;
    const vec v1 = e0 - v0;
    const vec v2 = v1 * v1;
    store_f32(at->y0 + row * COLUMNS, v1, count);
    sums[0] += v2;
}

/* Rows `first` up to `end`; adds their sums. */
INLINE void run_chain(const columns *at, long first, long end, int count, vec *totals)
{
    vec even[SUMS] = {0}, odd[SUMS] = {0};
    long row = first;
    for (; row + 1 < end; row += 2) {
        element(at, row, count, even);
        element(at, row + 1, count, odd);
    }
    if (row < end)
        element(at, row, count, even);
    UNROLL for (int n = 0; n < SUMS; n++)
        totals[n] += even[n] + odd[n];
}

/* `count` columns from `column` on, of rows `first` up to `end`. */
INLINE void run_columns(const cj_call *call, long first, long end, long column, int count)
{
    const columns at = columns_at(call->arrays, column, count);
    vec totals[SUMS] = {0};
    for (long row = first; row < end; row += CHAIN)
        run_chain(&at, row, least(row + CHAIN, end), count, totals);
    float *const sums = (float *)call->shared + first / ROW_BLOCK * (SUMS * COLUMNS) + column;
    UNROLL for (int n = 0; n < SUMS; n++)
        store_f32(sums + n * COLUMNS, totals[n], count);
}

static long rows(const cj_call *call)
{
    return call->out_extent;
}

static long row_blocks(const cj_call *call)
{
    return (rows(call) + ROW_BLOCK - 1) / ROW_BLOCK;
}

static long units(const cj_call *call)
{
    return row_blocks(call) * COLUMN_BLOCKS;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    for (long unit = first; unit < end; unit++) {
        const long row = unit / COLUMN_BLOCKS * ROW_BLOCK, last_row = least(row + ROW_BLOCK, rows(call));
        long column = unit % COLUMN_BLOCKS * COLUMN_BLOCK;
        const long last = least(column + COLUMN_BLOCK, COLUMNS);
        for (; column + LANES <= last; column += LANES)
            run_columns(call, row, last_row, column, LANES);
        if (column < last)
            run_columns(call, row, last_row, column, COLUMNS % LANES);
    }
}

enum { ADDED = 64 }; /* columns of a unit of the second stage */

static long shared_bytes(const cj_call *call)
{
    return row_blocks(call) * SUMS * COLUMNS * sizeof(float);
}

static long units_of_sums(const cj_call *call)
{
    (void)call;
    return (COLUMNS + ADDED - 1) / ADDED;
}

static void run_sums(const cj_call *call, char *scratch, long first, long end)
{
    const long parts = row_blocks(call);
    for (long unit = first; unit < end; unit++) {
        const long column = unit * ADDED;
        const int count = least(ADDED, COLUMNS - column);
        float total[SUMS][ADDED];
        for (int n = 0; n < SUMS; n++) {
            double sum[ADDED] = {0};
            for (long part = 0; part < parts; part++) {
                const float *const sums = (const float *)call->shared + (part * SUMS + n) * COLUMNS + column;
                for (int c = 0; c < count; c++)
                    sum[c] += sums[c];
            }
            for (int c = 0; c < count; c++)
                total[n][c] = sum[c];
        }
        for (int c = 0; c < count; c++)
            store_f32((float *)call->arrays[4].data + column + c, splat(total[0][c]), 1);
    }
}

const cj_kernel sums_nx20 = {
    .shared_bytes = shared_bytes,
    .num_stages = 2,
    .stages = { { units, run }, { units_of_sums, run_sums } },
};
