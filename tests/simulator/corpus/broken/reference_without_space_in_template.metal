// A reference parameter of a template without an address space.
// stage: type
// says: without an address space

template <typename T> inline void cj_increment(T& v) { v += T(1); }  // <-

[[kernel]] void custom_kernel_reference_without_space_in_template(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float v = x[i];
  cj_increment(v);
  y[i] = v;
}
