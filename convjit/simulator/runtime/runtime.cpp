// A process that runs one kernel: main() of the program into which a kernel is compiled.
//
//     program FILE CHECKED WAITS TIMEOUT  GX GY GZ  TX TY TZ  BUFFER...
//
// FILE is a descriptor of a file with the contents of the buffers; a BUFFER is told as
// NAME,SPACE,WRITTEN,INITIALISED,LINE,ELEMENT_BYTES,BYTES,OFFSET,START,POINTER: it lies START bytes into the pages at
// OFFSET, and the kernel's argument points POINTER bytes into it. What is found goes to standard output. All of this is
// private to process.py, which starts it.
#define SIMULATOR_CHECKED 1  // it serves checked and unchecked kernels alike
#include "runtime.h"

#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {
void synchronise_threadgroup(int flags);
void synchronise_simdgroup(int simdgroup, int flags);
}  // namespace

#include "undefined.h"

namespace {

void synchronise_threadgroup(int flags) {
  counters.barriers++;
  advance(flags);
}

void synchronise_simdgroup(int simdgroup, int flags) {
  if (flags & FOR_DEVICE) clocks[0].within[simdgroup]++;
  if (flags & FOR_THREADGROUP) clocks[1].within[simdgroup]++;
}

// ---- Positions.

void set(unsigned (&to)[3], const unsigned* from) { memcpy(to, from, sizeof to); }

void describe_thread(simulator_thread& thread, int index, const unsigned* group, const unsigned* groups,
                     const unsigned* grid, const unsigned* full, const unsigned* here) {
  const unsigned local[3] = {index % here[0], index / here[0] % here[1], index / here[0] / here[1]};
  for (int axis = 0; axis < 3; axis++) thread.thread_position_in_grid[axis] = group[axis] * full[axis] + local[axis];
  set(thread.thread_position_in_threadgroup, local);
  set(thread.threadgroup_position_in_grid, group);
  set(thread.threads_per_grid, grid);
  set(thread.grid_size, grid);
  memset(thread.grid_origin, 0, sizeof thread.grid_origin);
  set(thread.threadgroups_per_grid, groups);
  set(thread.threads_per_threadgroup, here);
  set(thread.dispatch_threads_per_threadgroup, full);
  const unsigned full_threads = full[0] * full[1] * full[2];
  thread.thread_index_in_threadgroup = index;
  thread.thread_index_in_simdgroup = index % LANES;
  thread.simdgroup_index_in_threadgroup = index / LANES;
  thread.simdgroups_per_threadgroup = (threads_here + LANES - 1) / LANES;
  thread.dispatch_simdgroups_per_threadgroup = (full_threads + LANES - 1) / LANES;
  thread.threads_per_simdgroup = thread.thread_execution_width = LANES;
  thread.thread_index_in_quadgroup = index % 4;
  thread.quadgroup_index_in_threadgroup = index / 4;
  thread.quadgroups_per_threadgroup = (threads_here + 3) / 4;
  thread.dispatch_quadgroups_per_threadgroup = (full_threads + 3) / 4;
}

// ---- The grid.

void run_threadgroup(const unsigned* group, const unsigned* groups, const unsigned* grid, const unsigned* full,
                     bool threads_wait) {
  unsigned here[3];
  for (int axis = 0; axis < 3; axis++) {
    const unsigned left = grid[axis] - group[axis] * full[axis];
    here[axis] = left < full[axis] ? left : full[axis];
  }
  threads_here = here[0] * here[1] * here[2];
  begin_threadgroup();
  poison_variables();
  for (int i = 0; i < threads_here; i++) describe_thread(fibers[i].thread, i, group, groups, grid, full, here);
  if (threads_wait || checked) return run_fibers();
  for (current = 0; current < threads_here; current++) simulator_entry(buffers, &fibers[current].thread);
}

void run_grid(const unsigned* grid, const unsigned* threadgroup, bool threads_wait) {
  unsigned full[3], groups[3];
  for (int axis = 0; axis < 3; axis++) {
    full[axis] = threadgroup[axis] < grid[axis] ? threadgroup[axis] : grid[axis];  // as MLX dispatches
    if (full[axis] == 0) return;
    groups[axis] = (grid[axis] + full[axis] - 1) / full[axis];
  }
  if (threads_wait || checked) allocate_stacks(full[0] * full[1] * full[2]);
  unsigned group[3];
  for (group[2] = 0; group[2] < groups[2]; group[2]++)
    for (group[1] = 0; group[1] < groups[1]; group[1]++)
      for (group[0] = 0; group[0] < groups[0]; group[0]++) run_threadgroup(group, groups, grid, full, threads_wait);
}

// ---- Faults, and kernels that do not end.

void on_fault(int signal, siginfo_t* info, void*) {
  const char* at = (const char*)info->si_addr;
  const Position position = position_of(current);
  if (signal == SIGFPE) fail(0, "undefined: thread %s divides by zero", position.text);
  if (signal == SIGILL || signal == SIGTRAP) fail(0, "thread %s runs into a trap of the compiler", position.text);
  const Array* array = at ? array_near(at) : nullptr;
  if (!array && stacks && at < stacks + threads_here * STACK && at > stacks - GAP)
    fail(0, "thread %s has more variables than its stack of %zu bytes holds", position.text, STACK);
  if (!array)
    fail(at - elsewhere.at < (ptrdiff_t)elsewhere.bytes && at >= elsewhere.at ? line_of(elsewhere.site) : 0,
         "thread %s touches memory outside of every array, or a vector that is not aligned", position.text);
  if (at >= array->start && at < array->start + array->bytes)
    fail(0, "read-only: thread %s writes %s, an input", position.text, place(*array, at).text);
  fail(0, "out of bounds: thread %s touches %s, which has %zu elements", position.text, place(*array, at).text,
       elements(*array));
}

int timeout;

void on_alarm(int) {
  fail(0, "still running after %d seconds, now thread %s: is there a loop that does not end? "
       "CONVJIT_SIMULATOR_TIMEOUT sets how long a kernel may take", timeout, position_of(current).text);
}

void handle_signals() {
  static char signal_stack[64 << 10];
  stack_t stack = {};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof signal_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction fault = {};
  fault.sa_sigaction = on_fault;
  fault.sa_flags = SA_SIGINFO | SA_ONSTACK;
  const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
  for (int signal : signals) sigaction(signal, &fault, nullptr);
  struct sigaction late = {};
  late.sa_handler = on_alarm;
  late.sa_flags = SA_ONSTACK;
  sigaction(SIGALRM, &late, nullptr);
  alarm(timeout);
}

// ---- What to run.

size_t next_number(char*& text) {
  text = strchr(text, ',') + 1;
  return strtoull(text, nullptr, 10);
}

struct Mapping {
  size_t offset, start_in_pages, pointer;
};

Mapping parse_buffer(char* text, Array& array) {
  char* at = text;
  array.space = (Space)next_number(at);
  array.written = next_number(at) != 0;
  array.initialised = next_number(at) != 0;
  array.line = (int)next_number(at);
  array.element_bytes = next_number(at);
  array.bytes = next_number(at);
  Mapping mapping;
  mapping.offset = next_number(at);
  mapping.start_in_pages = next_number(at);
  mapping.pointer = next_number(at);
  *strchr(text, ',') = 0;
  array.name = text;
  return mapping;
}

}  // namespace

int main(int argc, char** argv) {
  const int file = atoi(argv[1]);
  checked = atoi(argv[2]) != 0;
  const bool threads_wait = atoi(argv[3]) != 0;
  timeout = atoi(argv[4]);
  unsigned grid[3], threadgroup[3];
  for (int axis = 0; axis < 3; axis++) {
    grid[axis] = (unsigned)strtoul(argv[5 + axis], nullptr, 10);
    threadgroup[axis] = (unsigned)strtoul(argv[8 + axis], nullptr, 10);
  }
  buffer_count = argc - 11;
  Mapping mappings[MAX_BUFFERS];
  size_t largest = 0;
  for (int i = 0; i < buffer_count; i++) {
    mappings[i] = parse_buffer(argv[11 + i], buffer_arrays[i]);
    if (buffer_arrays[i].bytes > largest) largest = buffer_arrays[i].bytes;
  }
  handle_signals();
  reserve_buffers(largest);
  reserve_variables();
  for (int i = 0; i < buffer_count; i++) {
    map_buffer(i, file, mappings[i].offset, mappings[i].start_in_pages);
    buffers[i] = buffer_arrays[i].start + mappings[i].pointer;
    if (checked && buffer_arrays[i].written) allocate_cells(buffer_arrays[i]);
  }
  run_grid(grid, threadgroup, threads_wait);
  if (checked)
    for (int i = 0; i < buffer_count; i++) check_coverage(buffer_arrays[i]);
  finish();
}
