// A reference parameter without an address space.
// stage: type
// says: without an address space

inline void cj_increment(float& v) { v += 1.0f; }  // <-

[[kernel]] void custom_kernel_reference_without_space_in_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float v = x[i];
  cj_increment(v);
  y[i] = v;
}
