/* The part of CPython's stable ABI that quick.c uses. A user's machine has a C compiler, but seldom Python's headers. */
#include <stddef.h>
#include <sys/types.h>

typedef struct _object PyObject;
typedef struct _ts PyThreadState;
typedef ssize_t Py_ssize_t;

typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len, itemsize;
    int readonly, ndim;
    char *format;
    Py_ssize_t *shape, *strides, *suboffsets;
    void *internal;
} Py_buffer;

typedef struct {
    const char *name;
    PyObject *(*function)(PyObject *self, PyObject *argument);
    int flags;
    const char *doc;
} PyMethodDef;

enum { PyBUF_FULL_RO = 0x011c, Py_EQ = 2, METH_O = 0x0008 };

extern PyObject _Py_NoneStruct;

void Py_IncRef(PyObject *), Py_DecRef(PyObject *);
void PyErr_Clear(void);
PyObject *PyErr_Occurred(void);
PyObject *PyObject_Type(PyObject *), *PyObject_GetItem(PyObject *, PyObject *), *PyCell_Get(PyObject *);
PyObject *PyObject_CallFunctionObjArgs(PyObject *callable, ...);
PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *self, PyObject *module);
Py_ssize_t PyObject_Size(PyObject *), PyTuple_Size(PyObject *), PyList_Size(PyObject *);
PyObject *PyTuple_GetItem(PyObject *, Py_ssize_t), *PyList_GetItem(PyObject *, Py_ssize_t); /* borrowed */
int PyObject_RichCompareBool(PyObject *, PyObject *, int operation);
size_t PyLong_AsSize_t(PyObject *);
void *PyLong_AsVoidPtr(PyObject *);
int PyObject_GetBuffer(PyObject *, Py_buffer *, int flags);
void PyBuffer_Release(Py_buffer *);
PyThreadState *PyEval_SaveThread(void);
void PyEval_RestoreThread(PyThreadState *);
