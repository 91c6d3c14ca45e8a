/* Runs one kernel on a CPU that is emulated: `program LIBRARY KERNEL CALL RESULTS`. This text follows the runtime's.
 *
 * The file CALL holds, as longs, the batch, both extents, the threads and the number of arrays; for each array its bytes,
 * its batch step and whether it is a result; then the bytes of those that are not. The results go to RESULTS. */
#include <dlfcn.h>
#include <stdio.h>

enum { MOST_ARRAYS = 32 };

typedef struct {
    long bytes, batch_step, is_result;
} description;

static void check(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s: %s\n", what, dlerror());
    exit(1);
}

/* Memory that ends where a page begins that must not be touched; NaN in every type. */
static char *guarded(long bytes)
{
    const long page = sysconf(_SC_PAGESIZE), length = (bytes + page - 1) / page * page;
    char *memory = mmap(NULL, length + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED && !mprotect(memory + length, page, PROT_NONE), "memory");
    memset(memory, 0xff, length);
    return memory + length - bytes;
}

int main(int count, char **words)
{
    check(count == 5, "usage: program LIBRARY KERNEL CALL RESULTS");
    void *library = dlopen(words[1], RTLD_NOW);
    check(library != NULL, words[1]);
    const cj_kernel *kernel = dlsym(library, words[2]);
    check(kernel != NULL, words[2]);

    long numbers[5];
    description arrays[MOST_ARRAYS];
    char *data[MOST_ARRAYS];
    cj_place places[MOST_ARRAYS];
    FILE *call = fopen(words[3], "rb");
    check(call && fread(numbers, sizeof numbers, 1, call) == 1 && numbers[4] <= MOST_ARRAYS, words[3]);
    check(fread(arrays, sizeof *arrays, numbers[4], call) == (size_t)numbers[4], words[3]);
    for (int n = 0; n < numbers[4]; n++) {
        data[n] = guarded(arrays[n].bytes);
        places[n] = (cj_place){.base = 1 + n, .batch_step = arrays[n].batch_step};
        if (!arrays[n].is_result)
            check(fread(data[n], 1, arrays[n].bytes, call) == (size_t)arrays[n].bytes, words[3]);
    }

    const cj_step step = {kernel, places, numbers[4], numbers[3], numbers[0], numbers[1], numbers[2]};
    check(cj_run(&step, 1, data, 0, numbers[3]) == 0, "no memory");
    FILE *results = fopen(words[4], "wb");
    check(results != NULL, words[4]);
    for (int n = 0; n < numbers[4]; n++)
        if (arrays[n].is_result)
            check(fwrite(data[n], 1, arrays[n].bytes, results) == (size_t)arrays[n].bytes, words[4]);
    return fclose(results);
}
