// A pointer parameter without an address space.
// stage: type
// says: without an address space

inline float cj_load(const float* p) { return *p; }  // <-

[[kernel]] void custom_kernel_pointer_without_space_in_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_load(x + i);
}
