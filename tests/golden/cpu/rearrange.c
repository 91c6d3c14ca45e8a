/* Elements of 32 bits to other places, as the first array says, a `header`. An array for each part follows,
 * then the result. */
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

#include <stdint.h>
#include <string.h>

typedef uint32_t element;

enum {
    AXES = 6,
    LAST = AXES - 1, /* the axis of a row */
};

/* A box of elements. Units are counted through all parts. */
typedef struct {
    long first_unit, rows, rows_of_unit;
    long source, target; /* of its first element */
    long extents[AXES], source_strides[AXES], target_strides[AXES];
} part;

typedef struct {
    long units, num_parts;
    part parts[];
} header;

static void copy_row(const element *source, element *target, const part *p)
{
    const long count = p->extents[LAST], from = p->source_strides[LAST], to = p->target_strides[LAST];
    if (from == 1 && to == 1)
        memcpy(target, source, count * sizeof(element));
    else if (to == 1)
        for (long n = 0; n < count; n++)
            target[n] = source[n * from];
    else
        for (long n = 0; n < count; n++)
            target[n * to] = source[n * from];
}

/* Rows `first` up to `end`: their places are counted on from axis to axis, as by an odometer. */
static void copy_rows(const element *source, element *target, const part *p, long first, long end)
{
    long at[AXES];
    for (long axis = LAST - 1, left = first; axis >= 0; axis--) {
        at[axis] = left % p->extents[axis];
        left /= p->extents[axis];
        source += at[axis] * p->source_strides[axis];
        target += at[axis] * p->target_strides[axis];
    }
    for (long row = first; row < end; row++) {
        copy_row(source, target, p);
        for (long axis = LAST - 1; axis >= 0; axis--) {
            source += p->source_strides[axis];
            target += p->target_strides[axis];
            if (++at[axis] < p->extents[axis])
                break;
            source -= at[axis] * p->source_strides[axis];
            target -= at[axis] * p->target_strides[axis];
            at[axis] = 0;
        }
    }
}

static long units(const cj_call *call)
{
    return ((const header *)call->arrays[0].data)->units;
}

static void run(const cj_call *call, char *scratch, long first, long end)
{
    const header *const all = (const header *)call->arrays[0].data;
    const cj_array *array = &call->arrays[1];
    element *const result = (element *)array[all->num_parts].data;
    const part *p = all->parts;
    for (long unit = first; unit < end; unit++) {
        long row = (unit - p->first_unit) * p->rows_of_unit;
        for (; row >= p->rows; array++, row = (unit - p->first_unit) * p->rows_of_unit)
            p++;
        const long left = p->rows - row, rows = left < p->rows_of_unit ? left : p->rows_of_unit;
        copy_rows((const element *)array->data + p->source, result + p->target, p, row, row + rows);
    }
}

const cj_kernel rearrange_32 = {
    .num_stages = 1,
    .stages = { { units, run } },
};
