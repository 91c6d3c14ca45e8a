// Buffers and threadgroup variables: each in a slot of its own, with untouchable memory around, so that an access
// that leaves its array is noticed, and the array that it was meant for is known.
#pragma once
#include "fibers.h"

namespace {

const size_t PAGE = 64 << 10;  // the largest page of any host
const size_t GAP = 256 << 20;  // around each buffer
const int MAX_BUFFERS = 31, MAX_VARIABLES = 64;

enum Space { DEVICE, CONSTANT, THREADGROUP };

struct Array {
  const char* name;
  char* start;
  size_t bytes;
  int line;  // where it is declared
  size_t element_bytes;
  Space space;
  bool written, initialised;
  struct Cell* cells;  // of checked kernels, where it is written: see shadow.h
};

void allocate_cells(Array& array);

size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

// ---- Buffers.

Array buffer_arrays[MAX_BUFFERS];
int buffer_count;
char* buffer_slots;
int slot_bits = 30;  // a slot has 1 << slot_bits bytes

void reserve_buffers(size_t largest) {
  while (((size_t)1 << slot_bits) < largest + 2 * GAP) slot_bits++;
  const size_t all = (size_t)buffer_count << slot_bits;
  buffer_slots = (char*)mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (buffer_slots == (char*)MAP_FAILED) fail(0, "no room for %d buffers in this process", buffer_count);
}

// Maps the pages of `file` at `offset`, which end with the array, into slot `i`.
void map_buffer(int i, int file, size_t offset, size_t start_in_pages) {
  Array& array = buffer_arrays[i];
  char* pages = buffer_slots + ((size_t)i << slot_bits) + GAP;
  const size_t size = whole_pages(start_in_pages + array.bytes);
  const int protection = array.written ? PROT_READ | PROT_WRITE : PROT_READ;
  if (size > 0 && mmap(pages, size, protection, MAP_SHARED | MAP_FIXED, file, (off_t)offset) == MAP_FAILED)
    fail(0, "cannot map the buffer `%s` of %zu bytes", array.name, array.bytes);
  array.start = pages + start_in_pages;
}

// ---- Threadgroup variables.

const size_t LIMIT = 32 << 10, SLOT = 2 * PAGE;
static_assert(LIMIT <= PAGE, "a variable lies in the lower half of its slot");

Array variables[MAX_VARIABLES];
char* variable_slots;
size_t threadgroup_bytes;

void reserve_variables() {
  const size_t all = MAX_VARIABLES * SLOT;
  variable_slots = (char*)mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (variable_slots == (char*)MAP_FAILED) fail(0, "no room for threadgroup memory in this process");
}

// The memory of a threadgroup holds nothing of the one before.
void poison_variables() {
  for (Array& variable : variables)
    if (variable.start) memset(variable.start, 0xff, variable.bytes);
}

// ---- Which array is at, or nearest to, this address?

Array* array_near(const void* at) {
  const size_t among_variables = (const char*)at - variable_slots;
  if (among_variables < MAX_VARIABLES * SLOT) {
    Array& variable = variables[among_variables / SLOT];
    return variable.start ? &variable : nullptr;
  }
  const size_t among_buffers = (const char*)at - buffer_slots;
  if (among_buffers < (size_t)buffer_count << slot_bits) return &buffer_arrays[among_buffers >> slot_bits];
  return nullptr;
}

struct Place {
  char text[120];
};
// "`tile`[3]": also where there is no such element.
Place place(const Array& array, const void* at) {
  Place result;
  const ptrdiff_t offset = (const char*)at - array.start, size = (ptrdiff_t)array.element_bytes;
  const ptrdiff_t element = (offset >= 0 ? offset : offset - size + 1) / size, rest = offset - element * size;
  if (rest == 0)
    snprintf(result.text, sizeof result.text, "`%s`[%td]", array.name, element);
  else
    snprintf(result.text, sizeof result.text, "byte %td of `%s`[%td]", rest, array.name, element);
  return result;
}

size_t elements(const Array& array) { return array.bytes / array.element_bytes; }

}  // namespace

extern "C" void* simulator_threadgroup_memory(int number, size_t bytes, size_t element_bytes, const char* name) {
  if (number >= MAX_VARIABLES) fail(0, "more than %d threadgroup variables", MAX_VARIABLES);
  Array& variable = variables[number];
  if (variable.start) return variable.start;
  threadgroup_bytes = (threadgroup_bytes + 15) / 16 * 16 + bytes;
  if (threadgroup_bytes > LIMIT)
    fail(0, "%zu bytes of threadgroup memory, `%s` being the latest: the limit is %zu", threadgroup_bytes, name, LIMIT);
  char* pages = variable_slots + number * SLOT;
  if (mprotect(pages, PAGE, PROT_READ | PROT_WRITE) != 0) fail(0, "no memory for the threadgroup variable `%s`", name);
  const size_t alignment = checked ? 64 : 16;  // a checked kernel needs no page to end with its array
  variable = {name, pages + (PAGE - bytes) / alignment * alignment, bytes, 0, element_bytes, THREADGROUP, true, false, nullptr};
  memset(variable.start, 0xff, bytes);
  if (checked) allocate_cells(variable);
  counters.threadgroup_memory = threadgroup_bytes;
  return variable.start;
}
