// What the compiler calls where C++ leaves open what happens: it expects the names of UBSan's runtime.
#pragma once
#include "shadow.h"

namespace {

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeDescriptor {
  uint16_t kind, info;  // of an integer: info is 2 * log2(bits) + is it signed?
  char name[1];
};
struct IndexData {
  SourceLocation location;
  const TypeDescriptor *array, *index;
};
struct ShiftData {
  SourceLocation location;
  const TypeDescriptor *left, *right;
};
struct ArithmeticData {
  SourceLocation location;
  const TypeDescriptor* type;
};
struct PointerData {
  SourceLocation location;
  const TypeDescriptor* type;
  unsigned char log_alignment, use;
};

// The kernel's line: of the code itself, or of the call where a function of the headers was inlined.
int line_at(const SourceLocation& location, Site site) {
  const bool is_kernel = location.file && strstr(location.file, "kernel.metal");
  return is_kernel ? (int)location.line : line_of(site);
}

long long value_of(uintptr_t value, const TypeDescriptor& type) {
  const int bits = 1 << (type.info >> 1);
  if (!(type.info & 1) || bits >= 64) return (long long)value;
  return (long long)(value << (64 - bits)) >> (64 - bits);
}

void find_undefined(const char* what, const SourceLocation& location, Site site, const TypeDescriptor& type) {
  if (found_before(key_of(what, site))) return;
  find(key_of(what, site), line_at(location, site), "undefined: thread %s %s %s", position_of(current).text, what,
       type.name);
}

}  // namespace

extern "C" {
void __ubsan_handle_out_of_bounds(const IndexData* data, uintptr_t index) {
  fail(line_at(data->location, HERE), "out of bounds: thread %s takes element %lld of an array %s",
       position_of(current).text, value_of(index, *data->index), data->array->name);
}
void __ubsan_handle_shift_out_of_bounds(const ShiftData* data, uintptr_t, uintptr_t) {
  find_undefined("shifts by at least as many bits as there are in", data->location, HERE, *data->left);
}
void __ubsan_handle_divrem_overflow(const ArithmeticData* data, uintptr_t, uintptr_t) {
  fail(line_at(data->location, HERE), "undefined: thread %s divides by zero", position_of(current).text);
}
void __ubsan_handle_add_overflow(const ArithmeticData* data, uintptr_t, uintptr_t) {
  find_undefined("adds to more than fits into", data->location, HERE, *data->type);
}
void __ubsan_handle_sub_overflow(const ArithmeticData* data, uintptr_t, uintptr_t) {
  find_undefined("subtracts to more than fits into", data->location, HERE, *data->type);
}
void __ubsan_handle_mul_overflow(const ArithmeticData* data, uintptr_t, uintptr_t) {
  find_undefined("multiplies to more than fits into", data->location, HERE, *data->type);
}
void __ubsan_handle_negate_overflow(const ArithmeticData* data, uintptr_t) {
  find_undefined("negates the smallest", data->location, HERE, *data->type);
}
void __ubsan_handle_type_mismatch_v1(const PointerData* data, uintptr_t pointer) {
  const uintptr_t alignment = (uintptr_t)1 << data->log_alignment;
  if (pointer % alignment == 0) return;
  find_misaligned((const void*)pointer, (int)alignment, line_at(data->location, HERE));
}
}
