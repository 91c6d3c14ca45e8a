// Checks each access of a checked kernel: is it inside of its array, is it ordered behind the accesses that it depends
// on, and was it written before it is read?
//
// Two accesses of different threads are ordered if a barrier for their kind of memory lies between: of the threadgroup,
// or of their simdgroup if they share one. Accesses of different threadgroups never are.
#pragma once
#include "memory.h"

namespace {

// ---- What happened to two bytes of an array, or to one where elements are bytes.

enum Who : uint8_t {
  NOBODY,
  ONE,            // the thread that is named
  SOME_LANES,     // several of its simdgroup, among them the one that is named
  SOME_THREADS,   // of several simdgroups
  OTHER_GROUPS,   // threads of a threadgroup before this one, too
};

struct Mark {
  uint32_t phase;   // of the threadgroup: how many barriers came before
  uint32_t within;  // of the simdgroup since then
  Site site;
  int16_t thread;
  Who who;
  bool atomic;
};

struct Cell {
  Mark write, read;
};
size_t cell_bytes(const Array& array) { return array.element_bytes % 2 == 0 ? 2 : 1; }

// ---- Phases: one count for device memory, one for threadgroup memory.

enum { FOR_DEVICE = 1, FOR_THREADGROUP = 2 };  // as Metal's mem_flags

struct {
  uint32_t phase, first_of_group;
  uint32_t within[MAX_THREADS / LANES];
} clocks[2] = {{1, 1, {}}, {1, 1, {}}};

int clock_of(const Array& array) { return array.space == THREADGROUP ? 1 : 0; }

void begin_threadgroup() {
  for (auto& clock : clocks) clock.first_of_group = ++clock.phase;
}

void advance(int flags) {
  if (flags & FOR_DEVICE) clocks[0].phase++;
  if (flags & FOR_THREADGROUP) clocks[1].phase++;
}

// ---- Order.

struct Access {
  int thread;
  uint32_t phase, within, first_of_group;
  Site site;
  bool atomic;

  bool in_simdgroup_of(const Mark& mark) const { return mark.thread / LANES == thread / LANES; }
  bool before_this_group(const Mark& mark) const { return mark.phase < first_of_group; }
  bool is_ordered_behind(const Mark& mark) const {
    if (mark.who == NOBODY || (atomic && mark.atomic)) return true;
    if (mark.who == OTHER_GROUPS || before_this_group(mark)) return false;
    if (mark.phase != phase || (mark.who == ONE && mark.thread == thread)) return true;
    return mark.who != SOME_THREADS && in_simdgroup_of(mark) && mark.within != within;
  }
  Mark mark() const { return {phase, within, site, (int16_t)thread, ONE, atomic}; }
};

// `mark` after one more access of its kind.
void add(Mark& mark, const Access& access) {
  Who who = ONE;
  if (mark.who != NOBODY && (mark.who == OTHER_GROUPS || access.before_this_group(mark)))
    who = OTHER_GROUPS;
  else if (mark.who != NOBODY && mark.phase == access.phase && !(mark.who == ONE && mark.thread == access.thread)) {
    if (mark.who == SOME_THREADS || !access.in_simdgroup_of(mark))
      who = SOME_THREADS;
    else if (mark.within == access.within)
      who = SOME_LANES;
  }
  const bool hides_plain = access.atomic && mark.who != NOBODY && !mark.atomic && mark.phase == access.phase;
  const Site site = hides_plain ? mark.site : access.site;
  mark = access.mark();
  mark.who = who;
  mark.atomic = access.atomic && !hides_plain;
  mark.site = site;
}

// ---- Findings.

uint64_t key_of(const char* kind, Site site, Site other = 0) {
  return ((uint64_t)site << 32 | other) * 31 + (uint64_t)(uintptr_t)kind;
}

Position who_made(const Access& access, const Mark& mark) {
  Position result;
  if (mark.who == OTHER_GROUPS || access.before_this_group(mark))
    snprintf(result.text, sizeof result.text, "a thread of another threadgroup");
  else if (mark.thread == access.thread)
    snprintf(result.text, sizeof result.text, "also other threads");
  else
    snprintf(result.text, sizeof result.text, "thread %s", position_of(mark.thread).text);
  return result;
}

void find_race(const char* does, const char* did, const Array& array, const void* at, const Access& access,
               const Mark& earlier) {
  if (found_before(key_of(does, access.site, earlier.site))) return;
  const char* missing = array.space == THREADGROUP ? "no barrier for threadgroup memory lies between"
                                                   : "no barrier for device memory lies between";
  if (earlier.who == OTHER_GROUPS || access.before_this_group(earlier)) missing = "nothing orders threadgroups";
  find(key_of(does, access.site, earlier.site), line_of(access.site), "race: thread %s %s %s, which %s %s in line %d: %s",
       position_of(access.thread).text, does, place(array, at).text, who_made(access, earlier).text, did,
       line_of(earlier.site), missing);
}

void find_uninitialised(const Array& array, const void* at, const Access& access) {
  const uint64_t key = key_of("uninitialised", access.site);
  if (found_before(key)) return;
  find(key, line_of(access.site), "uninitialised: thread %s reads %s, which nobody has written",
       position_of(access.thread).text, place(array, at).text);
}

// Tells at most one thing of an access.
void check_cells(Array& array, const char* at, size_t bytes, bool writes, const Access& access) {
  const size_t size = cell_bytes(array), first = (at - array.start) / size, last = (at + bytes - 1 - array.start) / size;
  bool told = false;
  for (size_t i = first; i <= last; i++) {
    Cell& cell = array.cells[i];
    const char* here = i == first ? at : array.start + i * size;
    if (array.space == THREADGROUP && access.before_this_group(cell.write)) cell.write.who = NOBODY;
    if (array.space == THREADGROUP && access.before_this_group(cell.read)) cell.read.who = NOBODY;
    if (!told && !access.is_ordered_behind(cell.write)) {
      find_race(writes ? "writes" : "reads", "wrote", array, here, access, cell.write);
      told = true;
    } else if (!told && writes && !access.is_ordered_behind(cell.read)) {
      find_race("writes", "read", array, here, access, cell.read);
      told = true;
    } else if (!told && !writes && cell.write.who == NOBODY && !array.initialised) {
      find_uninitialised(array, here, access);
      told = true;
    }
    if (!writes) {
      add(cell.read, access);
    } else if (access.atomic) {
      add(cell.write, access);
    } else {
      cell.write = access.mark();
      cell.read.who = NOBODY;
    }
  }
}

// ---- One access.

void count_bytes(const Array& array, size_t bytes, bool writes) {
  if (array.space == CONSTANT)
    counters.constant_bytes_read += bytes;
  else if (array.space == DEVICE)
    (writes ? counters.device_bytes_written : counters.device_bytes_read) += bytes;
  else
    (writes ? counters.threadgroup_bytes_written : counters.threadgroup_bytes_read) += bytes;
}

// The latest access to what is no array: a table at program scope, or what will now end the kernel.
struct {
  const char* at;
  size_t bytes;
  Site site;
} elsewhere;

void observe(const volatile void* address, size_t bytes, int kind, Site site) {
  const char* at = (const char*)address;
  if (in_stack_of(current, at) || in_collective_work || bytes == 0) return;
  const bool writes = kind & SIMULATOR_WRITE;
  Array* array = array_near(at);
  if (!array) {
    const size_t among_stacks = at - stacks;
    if (among_stacks < threads_here * STACK)
      fail(line_of(site), "thread %s touches a variable of thread %s", position_of(current).text,
           position_of((int)(among_stacks / STACK)).text);
    const bool is_attribute = at >= (const char*)fibers && at < (const char*)(fibers + MAX_THREADS);
    elsewhere = {at, bytes, site};
    if (!is_attribute) counters.constant_bytes_read += bytes;  // a table at program scope
    return;
  }
  if (at < array->start || at + bytes > array->start + array->bytes)
    fail(line_of(site), "out of bounds: thread %s %s %zu bytes at %s, which has %zu elements", position_of(current).text,
         writes ? "writes" : "reads", bytes, place(*array, at).text, elements(*array));
  if (writes && !array->written)
    fail(line_of(site), "read-only: thread %s writes %s, an input", position_of(current).text, place(*array, at).text);
  count_bytes(*array, bytes, writes);
  if (!array->cells) return;
  const auto& clock = clocks[clock_of(*array)];
  const Access access{current, clock.phase, clock.within[current / LANES], clock.first_of_group, site,
                      (kind & SIMULATOR_ATOMIC) != 0};
  check_cells(*array, at, bytes, writes, access);
}

__attribute__((noreturn)) void find_misaligned(const void* at, int alignment, int line) {
  const Array* array = array_near(at);
  fail(line, "misaligned: thread %s takes %s for a type that lies at multiples of %d bytes", position_of(current).text,
       array ? place(*array, at).text : "what is no array", alignment);
}

void allocate_cells(Array& array) {
  const size_t size = (array.bytes / cell_bytes(array) + 1) * sizeof(Cell);
  array.cells = (Cell*)mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (array.cells == (Cell*)MAP_FAILED) fail(0, "no memory to check `%s` of %zu bytes", array.name, array.bytes);
}

// At the end: what should have been written, and was not.
void check_coverage(const Array& array) {
  if (!array.written || array.initialised || array.space == THREADGROUP) return;
  size_t missing = 0, first = 0;
  for (size_t start = 0; start < array.bytes; start += array.element_bytes) {
    if (array.cells[start / cell_bytes(array)].write.who != NOBODY) continue;
    if (missing++ == 0) first = start / array.element_bytes;
  }
  if (missing > 0)
    find(0, array.line, "unwritten: %zu of %zu elements of the output `%s` are never written, the first is [%zu]", missing,
         elements(array), array.name, first);
}

}  // namespace

// ---- What the compiler calls: it expects the names of ThreadSanitizer's runtime.

#define HERE site_of(__builtin_return_address(0))
#define ACCESSES(n, unaligned, alignment)                                                            \
  void __tsan_##unaligned##read##n(void* at) { touch<n, alignment, SIMULATOR_READ>(at, HERE); }      \
  void __tsan_##unaligned##write##n(void* at) { touch<n, alignment, SIMULATOR_WRITE>(at, HERE); }    \
  void __tsan_##unaligned##volatile_read##n(void* at) { touch<n, alignment, SIMULATOR_READ>(at, HERE); }   \
  void __tsan_##unaligned##volatile_write##n(void* at) { touch<n, alignment, SIMULATOR_WRITE>(at, HERE); } \
  void __tsan_##unaligned##read_write##n(void* at) {                                                 \
    touch<n, alignment, SIMULATOR_READ>(at, HERE);                                                   \
    touch<n, alignment, SIMULATOR_WRITE>(at, HERE);                                                  \
  }

namespace {

template <int Bytes, int Alignment, int Kind> void touch(void* at, Site site) {
  if ((uintptr_t)at % Alignment != 0 && array_near(at)) find_misaligned(at, Alignment, line_of(site));
  observe(at, Bytes, Kind, site);
}

}  // namespace

extern "C" {
ACCESSES(1, , 1)
ACCESSES(2, , 2)
ACCESSES(4, , 4)
ACCESSES(8, , 8)
ACCESSES(16, , 16)
ACCESSES(2, unaligned_, 1)
ACCESSES(4, unaligned_, 1)
ACCESSES(8, unaligned_, 1)
ACCESSES(16, unaligned_, 1)
void __tsan_read_range(void* at, size_t bytes) { observe(at, bytes, SIMULATOR_READ, HERE); }
void __tsan_write_range(void* at, size_t bytes) { observe(at, bytes, SIMULATOR_WRITE, HERE); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  observe(from, bytes, SIMULATOR_READ, HERE);
  observe(to, bytes, SIMULATOR_WRITE, HERE);
  return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  observe(from, bytes, SIMULATOR_READ, HERE);
  observe(to, bytes, SIMULATOR_WRITE, HERE);
  return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  observe(to, bytes, SIMULATOR_WRITE, HERE);
  return memset(to, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

void simulator_access(const volatile void* at, size_t bytes, int kind, int line) {
  observe(at, bytes, kind, site_of_line(line));
}
void simulator_pass(int line, const char* name) {
  Fiber& fiber = fibers[current];
  fiber.path = fiber.path * 1099511628211ull + (uint64_t)line;
  fiber.passed++;
  fiber.last_line = line;
  fiber.last_name = name;
}
void simulator_count_fma(int lanes) { counters.fma_operations += lanes; }
}
