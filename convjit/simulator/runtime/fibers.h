// The threads of a threadgroup: each a fiber, all on one thread of the host.
//
// A fiber runs until it waits at a barrier, in a collective, or ends. So the order of threads is fixed, and results are
// the same in every run.
#pragma once
#include "report.h"
#include "switch.h"

namespace {

const int MAX_THREADS = 1024, LANES = 32;
const size_t STACK = 256 << 10;

enum State { READY, AT_BARRIER, IN_COLLECTIVE, DONE };

struct Fiber {
  State state;
  void* stack;
  int line;          // where it waits
  int flags;         // of the barrier at which it waits
  const char* name;  // of the collective in which it waits
  void* data;        // what it brought there
  uint64_t path;     // which operations of its simdgroup it came by: see simulator_pass
  int passed;        // how many
  int last_line;     // the latest one
  const char* last_name;
  simulator_thread thread;
};

Fiber fibers[MAX_THREADS];
char* stacks;
void* main_stack;
int current;
int threads_here;  // in the threadgroup that runs now
int arrived[MAX_THREADS / LANES];
bool in_collective_work;
void* buffers[32];

bool in_stack_of(int thread, const void* at) {
  return stacks && (size_t)((const char*)at - (stacks + thread * STACK)) < STACK;
}
int lanes_of(int simdgroup) {
  const int left = threads_here - simdgroup * LANES;
  return left < LANES ? left : LANES;
}

struct Position {
  char text[48];
};
// "(3, 0, 0)": of a thread of the threadgroup that runs now, in the grid.
Position position_of(int thread) {
  Position result;
  const unsigned* at = fibers[thread].thread.thread_position_in_grid;
  snprintf(result.text, sizeof result.text, "(%u, %u, %u)", at[0], at[1], at[2]);
  return result;
}

void allocate_stacks(int threads) {
  const size_t guard = sysconf(_SC_PAGESIZE);
  stacks = (char*)mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (stacks == (char*)MAP_FAILED) fail(0, "no memory for the stacks of %d threads", threads);
  for (int i = 0; i < threads; i++) mprotect(stacks + i * STACK, guard, PROT_NONE);
}

// Goes on with the next thread that can run, the ones of the same simdgroup first; with the main loop if there is none.
void run_another() {
  const int from = current, first = from / LANES * LANES, lanes = lanes_of(from / LANES);
  int next = -1;
  for (int i = 1; i < lanes && next < 0; i++) {
    const int lane = first + (from - first + i) % lanes;
    if (fibers[lane].state == READY) next = lane;
  }
  for (int i = 0; i < threads_here && next < 0; i++)
    if (fibers[i].state == READY) next = i;
  current = next < 0 ? from : next;
  switch_fiber(&fibers[from].stack, next < 0 ? main_stack : fibers[next].stack);
}

void start_fiber() {
  simulator_entry(buffers, &fibers[current].thread);
  fibers[current].state = DONE;
  run_another();
}

// Threads of a simdgroup that wait for the same thing must have come the same way.
void compare_paths(int simdgroup) {
  const int first = simdgroup * LANES;
  for (int i = first + 1; i < first + lanes_of(simdgroup); i++) {
    if (fibers[i].path == fibers[first].path) continue;
    const Fiber& further = fibers[i].passed > fibers[first].passed ? fibers[i] : fibers[first];
    fail(further.last_line, "%s is not reached by every lane of its simdgroup: by thread %s, but not by its neighbour",
         further.last_name, position_of((int)(&further - fibers)).text);
  }
}

// Nobody can go on: lets those at a barrier pass, returns false if all have ended.
bool pass_barrier() {
  int at_barrier = 0, here = 0;
  for (int i = 0; i < threads_here; i++) {
    const Fiber& fiber = fibers[i];
    if (fiber.state == IN_COLLECTIVE)
      fail(fiber.line, "%s is not reached by every lane of its simdgroup: by %d of %d, thread %s among them", fiber.name,
           arrived[i / LANES], lanes_of(i / LANES), position_of(i).text);
    if (fiber.state != AT_BARRIER) continue;
    if (at_barrier > 0 && fiber.line != fibers[here].line)
      fail(fiber.line, "threads of one threadgroup wait at different barriers: thread %s here, thread %s in line %d",
           position_of(i).text, position_of(here).text, fibers[here].line);
    here = i;
    at_barrier++;
  }
  for (int s = 0; s * LANES < threads_here; s++) compare_paths(s);
  if (at_barrier == 0) return false;
  if (at_barrier < threads_here)
    fail(fibers[here].line, "only %d of %d threads reach the barrier: thread %s does, the others have ended", at_barrier,
         threads_here, position_of(here).text);
  synchronise_threadgroup(fibers[here].flags);
  for (int i = 0; i < threads_here; i++) fibers[i].state = READY;
  return true;
}

void run_fibers() {
  for (int i = 0; i < threads_here; i++) {
    Fiber& fiber = fibers[i];
    fiber.state = READY;
    fiber.stack = first_frame(stacks + (i + 1) * STACK, start_fiber);
    fiber.path = 0;
    fiber.passed = 0;
  }
  memset(arrived, 0, sizeof arrived);
  do {
    current = 0;
    switch_fiber(&main_stack, fibers[current].stack);
  } while (pass_barrier());
}

}  // namespace

extern "C" {

void simulator_barrier(int flags, int line) {
  Fiber& fiber = fibers[current];
  fiber.line = line;
  fiber.flags = flags;
  fiber.state = AT_BARRIER;
  run_another();
}

void simulator_collective(void* mine, void (*work)(void* const* data, int lanes), int line, const char* name) {
  const int simdgroup = current / LANES, first = simdgroup * LANES, lanes = lanes_of(simdgroup);
  Fiber& fiber = fibers[current];
  fiber.data = mine;
  fiber.line = line;
  fiber.name = name;
  if (++arrived[simdgroup] < lanes) {
    fiber.state = IN_COLLECTIVE;
    return run_another();
  }
  arrived[simdgroup] = 0;
  compare_paths(simdgroup);
  void* data[LANES];
  for (int i = 0; i < lanes; i++) {
    Fiber& lane = fibers[first + i];
    if (lane.line != line || (lane.name != name && strcmp(lane.name, name) != 0))
      fail(line, "lanes of one simdgroup wait in different places: thread %s in %s here, thread %s in %s in line %d",
           position_of(current).text, name, position_of(first + i).text, lane.name, lane.line);
    data[i] = lane.data;
  }
  const bool is_matrix = strncmp(name, "simdgroup_multiply", 18) == 0;
  if (is_matrix && lanes < LANES) fail(line, "%s in a simdgroup of %d threads: it needs all 32", name, lanes);
  count_collective(name, is_matrix);
  in_collective_work = true;
  if (work) work(data, lanes);
  in_collective_work = false;
  for (int i = 0; i < lanes; i++) fibers[first + i].state = READY;
}

void simulator_simdgroup_barrier(int flags, int line) {
  fibers[current].flags = flags;
  simulator_collective(
      nullptr, [](void* const*, int) { synchronise_simdgroup(current / LANES, fibers[current].flags); }, line,
      "simdgroup_barrier");
}

void simulator_uneven(int line, const char* name) {
  if (!checked || found_before((uint64_t)line)) return;
  find((uint64_t)line, line, "%s: lanes of one simdgroup give different numbers, thread %s another one than its first",
       name, position_of(current).text);
}

int simulator_lane() { return current % LANES; }
int simulator_thread_index() { return current; }
}
