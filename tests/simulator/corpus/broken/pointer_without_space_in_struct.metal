// A pointer in a struct without an address space.
// stage: type
// says: without an address space

struct cj_view {
  float* data;  // <-
  uint n;
};

[[kernel]] void custom_kernel_pointer_without_space_in_struct(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  cj_view v;
  v.n = 1u;
  y[i] = x[i] + float(v.n);
}
