/* How the runtime calls a kernel (convjit/backends/cpu/runtime.c has the same structures). */
typedef struct {
    char *data;
    long batch_step; /* bytes from one image to the next; 0 where an extra is broadcast along the batch */
} cj_array;

typedef struct {
    const cj_array *arrays; /* the input, the packed weight, the extras, the results */
    long batch;
    char *scratch; /* SCRATCH_BYTES for each thread */
} cj_call;
