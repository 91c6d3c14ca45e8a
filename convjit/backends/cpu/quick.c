/* A call of a compiled function that is one stretch, with no Python between the user and the kernels. After a kernel,
 * the caches hold none of Python's objects: the same in Python takes 30 to 85 us, here 1 to 10.
 *
 * The interpreter's lock is held everywhere but in cj_run, so for other threads of Python functions are atomic. */
#include <stdint.h>
#include <string.h>

#include "python.h"

/* ----------------------------------------------------------------- results: see recycled.py */

typedef struct {
    PyObject *array; /* ours: users get other array objects; NULL: no array */
    char *address;   /* of its elements */
    const int *descriptor_owners, *data_owners;
    int taken; /* is it being given to a user? */
} cj_kept;

enum { PER_RESULT = 2 }; /* while one is computed, its user still holds the one before */

typedef struct {
    cj_kept kept[PER_RESULT];
    int oldest;
} cj_results;

/* If nobody else owns the array and its data, what others have done with them is done. */
static int is_free(const cj_kept *kept)
{
    return kept->array && !kept->taken && __atomic_load_n(kept->descriptor_owners, __ATOMIC_ACQUIRE) == 1
           && __atomic_load_n(kept->data_owners, __ATOMIC_ACQUIRE) == 1;
}

/* A user's array object of an array that nobody holds, and `address`, where to write its elements; NULL if there is
 * none, or with Python's error set. Whatever ends the call, the array is free again once the user's object is gone. */
static PyObject *take(cj_results *results, PyObject *copy, char **address)
{
    for (int n = 0; n < PER_RESULT; n++) {
        cj_kept *const kept = &results->kept[n];
        if (!is_free(kept))
            continue;
        *address = kept->address;
        kept->taken = 1; /* a new object may set off a collection of garbage, and that any code */
        PyObject *const array = PyObject_CallFunctionObjArgs(copy, kept->array, NULL);
        kept->taken = 0;
        return array;
    }
    return NULL;
}

static PyObject *none(void)
{
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
}

/* The same for Python: the array or None. */
PyObject *cj_take(cj_results *results, PyObject *copy)
{
    char *address;
    PyObject *const array = take(results, copy, &address);
    return array || PyErr_Occurred() ? array : none();
}

/* Keeps one more array in place of the oldest that can be let go. */
void cj_keep(cj_results *results, PyObject *array, char *address, const int *descriptor_owners, const int *data_owners)
{
    for (int tried = 0; tried < PER_RESULT; tried++) {
        cj_kept *const kept = &results->kept[results->oldest];
        results->oldest = (results->oldest + 1) % PER_RESULT;
        if (kept->taken)
            continue;
        PyObject *const before = kept->array;
        Py_IncRef(array);
        *kept = (cj_kept){array, address, descriptor_owners, data_owners, .taken = 0};
        if (before)
            Py_DecRef(before);
        return;
    }
}

void cj_forget(cj_results *results)
{
    for (int n = 0; n < PER_RESULT; n++) {
        cj_kept *const kept = &results->kept[n];
        if (kept->taken || !kept->array)
            continue;
        PyObject *const array = kept->array;
        kept->array = NULL;
        Py_DecRef(array);
    }
}

/* ------------------------------------------------------------------- the guard: see guard.py */

typedef struct {
    const uint64_t *const *addresses;
    const uint64_t *expected;
    long num_words;
    PyObject *lists;    /* [(list, its items)] */
    PyObject *sized;    /* [(container, its length)] */
    PyObject *sets;     /* [(set, its elements)] */
    PyObject *cells;    /* [(cell, its content)] */
    PyObject *bindings; /* [(mapping, name, value)] */
    PyObject *absent;   /* [(mapping, name)] */
} cj_state;

/* Loads that do not wait for each other, much faster than a loop in Python. */
static int same_words(const cj_state *state)
{
    uint64_t difference = 0;
    for (long n = 0; n < state->num_words; n++)
        difference |= *state->addresses[n] ^ state->expected[n];
    return difference == 0;
}

static int same_items(PyObject *list, PyObject *items)
{
    const Py_ssize_t size = PyList_Size(items);
    if (PyList_Size(list) != size)
        return 0;
    for (Py_ssize_t n = 0; n < size; n++)
        if (PyList_GetItem(list, n) != PyList_GetItem(items, n))
            return 0;
    return 1;
}

/* Takes over the reference `found`, which may be NULL. */
static int is_same(PyObject *found, PyObject *expected)
{
    if (found)
        Py_DecRef(found);
    else
        PyErr_Clear();
    return found == expected;
}

static int same_list(PyObject *entry)
{
    return same_items(PyTuple_GetItem(entry, 0), PyTuple_GetItem(entry, 1));
}

static int same_size(PyObject *entry)
{
    return PyObject_Size(PyTuple_GetItem(entry, 0)) == (Py_ssize_t)PyLong_AsSize_t(PyTuple_GetItem(entry, 1));
}

static int same_set(PyObject *entry)
{
    return PyObject_RichCompareBool(PyTuple_GetItem(entry, 0), PyTuple_GetItem(entry, 1), Py_EQ) == 1;
}

static int same_cell(PyObject *entry)
{
    return is_same(PyCell_Get(PyTuple_GetItem(entry, 0)), PyTuple_GetItem(entry, 1));
}

static int same_binding(PyObject *entry)
{
    PyObject *const found = PyObject_GetItem(PyTuple_GetItem(entry, 0), PyTuple_GetItem(entry, 1));
    return is_same(found, PyTuple_GetItem(entry, 2));
}

static int is_absent(PyObject *entry)
{
    return is_same(PyObject_GetItem(PyTuple_GetItem(entry, 0), PyTuple_GetItem(entry, 1)), NULL);
}

static int all_same(PyObject *entries, int (*is_same)(PyObject *entry))
{
    const Py_ssize_t size = PyList_Size(entries);
    for (Py_ssize_t n = 0; n < size; n++)
        if (!is_same(PyList_GetItem(entries, n)))
            return 0;
    return 1;
}

/* Are weights, modules and bindings what they were? */
int cj_unchanged(const cj_state *state)
{
    const int unchanged = same_words(state) && all_same(state->lists, same_list) && all_same(state->sized, same_size)
                          && all_same(state->sets, same_set) && all_same(state->cells, same_cell)
                          && all_same(state->bindings, same_binding) && all_same(state->absent, is_absent);
    PyErr_Clear();
    return unchanged;
}

/* ---------------------------------------------------------------------- the call: see quick.py */

typedef struct {
    PyObject *object; /* this very one, such as a module; NULL: an array, as follows */
    int place;        /* in the table of arrays; -1: no kernel reads it */
    int ndim;
    const char *format;
    const Py_ssize_t *shape, *strides;
} cj_argument;

/* Where an array keeps the pointer to its descriptor, and that one the pointer to its data and the arrays that it is
 * computed from, in words. */
typedef struct {
    long descriptor, data, inputs;
} cj_layout;

typedef struct {
    const cj_state *state;
    const cj_argument *arguments;
    long num_arguments;
    PyObject *array_type, *copy;
    cj_layout layout;
    int (*run)(const void *steps, int num_steps, char *const *arrays, long result_bytes, int threads);
    const void *steps;
    int num_steps, threads;
    long result_bytes;
    char *const *arrays; /* of a call: those that change from call to call are filled in */
    long num_arrays;
    cj_results *results;
    long result_place;
} cj_quick;

/* Has it a value, and nothing that it is computed from? Then it is no tracer of a transformation. */
int cj_is_plain(PyObject *array, const cj_layout *layout)
{
    const uint64_t *const descriptor = ((const uint64_t *const *)array)[layout->descriptor];
    return descriptor && descriptor[layout->data] && descriptor[layout->inputs] == descriptor[layout->inputs + 1];
}

static int fits(const cj_argument *argument, const Py_buffer *view)
{
    if (view->ndim != argument->ndim || strcmp(view->format, argument->format))
        return 0;
    for (int axis = 0; axis < view->ndim; axis++) {
        const Py_ssize_t size = argument->shape[axis];
        if (view->shape[axis] != size || (size > 1 && view->strides[axis] != argument->strides[axis]))
            return 0;
    }
    return 1;
}

/* An array of the call: `view` is its memory, which stays where it is until `held` is let go, whatever others do with
 * the user's array meanwhile. */
typedef struct {
    PyObject *held;
    Py_buffer view;
} borrowed;

static int borrow(const cj_quick *quick, const cj_argument *argument, PyObject *array, borrowed *out)
{
    PyObject *const type = PyObject_Type(array);
    Py_DecRef(type);
    if (type != quick->array_type || !cj_is_plain(array, &quick->layout))
        return 0;
    out->held = PyObject_CallFunctionObjArgs(quick->copy, array, NULL);
    if (!out->held)
        return 0;
    if (PyObject_GetBuffer(out->held, &out->view, PyBUF_FULL_RO)) {
        Py_DecRef(out->held);
        return 0;
    }
    if (fits(argument, &out->view))
        return 1;
    PyBuffer_Release(&out->view);
    Py_DecRef(out->held);
    return 0;
}

static PyObject *run(const cj_quick *quick, char **arrays)
{
    PyObject *const result = take(quick->results, quick->copy, &arrays[quick->result_place]);
    if (!result)
        return NULL;
    PyThreadState *const thread = PyEval_SaveThread();
    const int failed = quick->run(quick->steps, quick->num_steps, arrays, quick->result_bytes, quick->threads);
    PyEval_RestoreThread(thread);
    if (!failed)
        return result;
    Py_DecRef(result);
    return NULL;
}

static PyObject *run_with(const cj_quick *quick, PyObject *args)
{
    if (PyTuple_Size(args) != quick->num_arguments || !cj_unchanged(quick->state))
        return NULL;
    char *arrays[quick->num_arrays];
    memcpy(arrays, quick->arrays, sizeof arrays);
    borrowed inputs[quick->num_arguments + 1];
    int num_inputs = 0, good = 1;
    for (long n = 0; good && n < quick->num_arguments; n++) {
        const cj_argument *const argument = &quick->arguments[n];
        PyObject *const given = PyTuple_GetItem(args, n);
        if (argument->object) {
            good = given == argument->object;
            continue;
        }
        good = borrow(quick, argument, given, &inputs[num_inputs]);
        if (good && argument->place >= 0)
            arrays[argument->place] = inputs[num_inputs].view.buf;
        num_inputs += good;
    }
    PyObject *const result = good ? run(quick, arrays) : NULL;
    while (num_inputs--) {
        PyBuffer_Release(&inputs[num_inputs].view);
        Py_DecRef(inputs[num_inputs].held);
    }
    return result;
}

/* The result, or None where Python has to look at the call. */
static PyObject *quick_call(PyObject *self, PyObject *args)
{
    const cj_quick *const quick = PyLong_AsVoidPtr(PyTuple_GetItem(self, 0));
    PyObject *const result = run_with(quick, args);
    if (result)
        return result;
    PyErr_Clear();
    return none();
}

/* A function that takes the arguments of a call as one tuple. `self` is a tuple: the address of a cj_quick, and all
 * that it points to. */
PyObject *cj_new_call(PyObject *self)
{
    static PyMethodDef method = {"quick_call", quick_call, METH_O, NULL};
    return PyCFunction_NewEx(&method, self, NULL);
}
