// Runs a kernel: one threadgroup after the other, each thread of it a fiber, all on one thread of the host.
//
// A fiber runs until it waits at a barrier, in a collective, or ends. So there are no true races here: an order of
// threads is fixed, and results are the same in every run.
#include "runtime.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

namespace {

// ---- Fibers: a stack each, and a switch that saves what a call must preserve.

extern "C" void switch_fiber(void** save_stack, void* to_stack) __asm__("simulator_switch_fiber");
#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".globl simulator_switch_fiber\n"
    "simulator_switch_fiber:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

// Six registers, the address to start at, and a return address that is never used.
void* first_frame(char* top, void (*start)()) {
  void** stack = (void**)top - 8;
  memset(stack, 0, 8 * sizeof(void*));
  stack[6] = (void*)start;
  return stack;
}
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".balign 4\n"
    ".globl simulator_switch_fiber\n"
    "simulator_switch_fiber:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");

void* first_frame(char* top, void (*start)()) {
  void** stack = (void**)top - 20;
  memset(stack, 0, 20 * sizeof(void*));
  stack[11] = (void*)start;
  return stack;
}
#else
#error "the simulator switches fibers on x86-64 and arm64 only"
#endif

const int MAX_THREADS = 1024, LANES = 32;
const size_t STACK = 128 << 10;

enum State { READY, AT_BARRIER, IN_COLLECTIVE, DONE };

struct Fiber {
  State state;
  void* stack;
  simulator_thread thread;
  int line;          // where it waits
  const char* name;  // in which collective it waits
  void* data;        // what it brought there
};

Fiber fibers[MAX_THREADS];
char* stacks = (char*)MAP_FAILED;
size_t stacks_size;
void* main_stack;
int current;
int threads_here;  // in the threadgroup that runs now
int arrived[MAX_THREADS / LANES];
void* const* buffers;

char message[400];
jmp_buf give_up;

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  longjmp(give_up, 1);
}

void start_fiber() {
  simulator_entry(buffers, &fibers[current].thread);
  fibers[current].state = DONE;
  switch_fiber(&fibers[current].stack, main_stack);
}

void wait_as(State state) {
  fibers[current].state = state;
  switch_fiber(&fibers[current].stack, main_stack);
}

void prepare_fiber(int i) {
  fibers[i].state = READY;
  fibers[i].stack = first_frame(stacks + (i + 1) * STACK, start_fiber);
}

// Nobody can go on: lets those at a barrier pass, returns false if all have ended.
bool pass_barrier() {
  int at_barrier = 0, line = 0;
  for (int i = 0; i < threads_here; i++) {
    const Fiber& fiber = fibers[i];
    if (fiber.state == IN_COLLECTIVE)
      fail("%s in line %d is not reached by every lane of its simdgroup", fiber.name, fiber.line);
    if (fiber.state != AT_BARRIER) continue;
    if (at_barrier > 0 && fiber.line != line)
      fail("threads of one threadgroup wait at different barriers, in lines %d and %d", line, fiber.line);
    line = fiber.line;
    at_barrier++;
  }
  if (at_barrier == 0) return false;
  if (at_barrier < threads_here)
    fail("only %d of %d threads reach the barrier in line %d", at_barrier, threads_here, line);
  for (int i = 0; i < threads_here; i++) fibers[i].state = READY;
  return true;
}

void run_fibers() {
  for (int i = 0; i < threads_here; i++) prepare_fiber(i);
  memset(arrived, 0, sizeof arrived);
  do {
    for (bool moved = true; moved;) {
      moved = false;
      for (current = 0; current < threads_here; current++) {
        if (fibers[current].state != READY) continue;
        switch_fiber(&main_stack, fibers[current].stack);
        moved = true;
      }
    }
  } while (pass_barrier());
}

// ---- Threadgroup memory: one arena, poisoned before each threadgroup.

const size_t ARENA = 32 << 10;
const int MAX_VARIABLES = 64;
alignas(16) char arena[ARENA];
char* variables[MAX_VARIABLES];
size_t arena_used;

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

void run_threadgroup(const unsigned* group, const unsigned* groups, const unsigned* grid, const unsigned* full,
                     bool threads_wait) {
  unsigned here[3];
  for (int axis = 0; axis < 3; axis++) {
    unsigned left = grid[axis] - group[axis] * full[axis];
    here[axis] = left < full[axis] ? left : full[axis];
  }
  threads_here = here[0] * here[1] * here[2];
  memset(arena, 0xff, sizeof arena);
  for (int i = 0; i < threads_here; i++) describe_thread(fibers[i].thread, i, group, groups, grid, full, here);
  if (threads_wait) return run_fibers();
  for (current = 0; current < threads_here; current++) simulator_entry(buffers, &fibers[current].thread);
}

void run_grid(const unsigned* grid, const unsigned* threadgroup, bool threads_wait) {
  unsigned full[3], groups[3];
  for (int axis = 0; axis < 3; axis++) {
    full[axis] = threadgroup[axis] < grid[axis] ? threadgroup[axis] : grid[axis];  // as MLX dispatches
    if (full[axis] == 0) return;
    groups[axis] = (grid[axis] + full[axis] - 1) / full[axis];
  }
  const uint64_t threads = (uint64_t)full[0] * full[1] * full[2];
  if (threads > MAX_THREADS) fail("a threadgroup of %llu threads: the limit is 1024", (unsigned long long)threads);
  if (threads_wait) {
    stacks_size = threads * STACK;
    stacks = (char*)mmap(nullptr, stacks_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (stacks == (char*)MAP_FAILED) fail("no memory for the stacks of %llu threads", (unsigned long long)threads);
  }
  arena_used = 0;
  memset(variables, 0, sizeof variables);
  unsigned group[3];
  for (group[2] = 0; group[2] < groups[2]; group[2]++)
    for (group[1] = 0; group[1] < groups[1]; group[1]++)
      for (group[0] = 0; group[0] < groups[0]; group[0]++)
        run_threadgroup(group, groups, grid, full, threads_wait);
}

// ---- Faults: a touch of the memory around a buffer ends the kernel, not the process.

const size_t GUARD = 64 << 20, PAGE = 16 << 10;  // 16 KiB: the largest page in use

size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

void on_fault(int) {
  const unsigned* at = fibers[current].thread.thread_position_in_grid;
  fail("the thread at (%u, %u, %u) of the grid touches memory outside of its buffers", at[0], at[1], at[2]);
}

}  // namespace

extern "C" {

void simulator_barrier(int line) {
  fibers[current].line = line;
  wait_as(AT_BARRIER);
}

void simulator_collective(void* mine, void (*work)(void* const* data, int lanes), int line, const char* name) {
  const int first = current / LANES * LANES;
  const int lanes = threads_here - first < LANES ? threads_here - first : LANES;
  Fiber& fiber = fibers[current];
  fiber.data = mine;
  fiber.line = line;
  fiber.name = name;
  if (++arrived[first / LANES] < lanes) return wait_as(IN_COLLECTIVE);
  arrived[first / LANES] = 0;
  void* data[LANES];
  for (int i = 0; i < lanes; i++) {
    Fiber& lane = fibers[first + i];
    if (lane.line != line || strcmp(lane.name, name) != 0)
      fail("lanes of one simdgroup wait in %s (line %d) and in %s (line %d)", lane.name, lane.line, name, line);
    data[i] = lane.data;
  }
  if (work) work(data, lanes);
  for (int i = 0; i < lanes; i++) fibers[first + i].state = READY;
}

void* simulator_threadgroup_memory(int number, size_t bytes) {
  if (!variables[number]) {
    const size_t start = (arena_used + 15) / 16 * 16;
    if (start + bytes > ARENA) fail("%zu bytes of threadgroup memory: the limit is %zu", start + bytes, ARENA);
    variables[number] = arena + start;
    arena_used = start + bytes;
  }
  return variables[number];
}

int simulator_lane() { return current % LANES; }

// Runs the kernel on `grid` threads. `threads_wait`: it has barriers or collectives, so its threads must be fibers.
// Returns null, or what went wrong.
const char* simulator_run(void* const* the_buffers, const unsigned* grid, const unsigned* threadgroup,
                          int threads_wait) {
  buffers = the_buffers;
  struct sigaction ours = {}, segv, bus;
  ours.sa_handler = on_fault;
  ours.sa_flags = SA_NODEFER;
  sigaction(SIGSEGV, &ours, &segv);
  sigaction(SIGBUS, &ours, &bus);
  const char* result = nullptr;
  if (setjmp(give_up) == 0)
    run_grid(grid, threadgroup, threads_wait != 0);
  else
    result = message;
  sigaction(SIGSEGV, &segv, nullptr);
  sigaction(SIGBUS, &bus, nullptr);
  if (stacks != (char*)MAP_FAILED) munmap(stacks, stacks_size);
  stacks = (char*)MAP_FAILED;
  return result;
}

// A buffer of `bytes` 0xff (NaN in every float type), 16 bytes aligned, whose end touches memory that may not be
// touched. Null if there is none left. `bytes` of `simulator_free` must be the same.
void* simulator_allocate(size_t bytes) {
  const size_t size = whole_pages(bytes);
  char* start = (char*)mmap(nullptr, GUARD + size + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (start == (char*)MAP_FAILED) return nullptr;
  if (mprotect(start + GUARD, size, PROT_READ | PROT_WRITE) != 0) return nullptr;
  memset(start + GUARD, 0xff, size);
  return start + GUARD + (size - bytes) / 16 * 16;
}

void simulator_free(void* buffer, size_t bytes) {
  const size_t size = whole_pages(bytes);
  munmap((char*)buffer - (size - bytes) / 16 * 16 - GUARD, GUARD + size + GUARD);
}
}
