// A matrix of half loaded from floats.
// stage: type
// says: no matching function

[[kernel]] void custom_kernel_matrix_load_of_another_type(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  simdgroup_matrix<half, 8, 8> m;
  simdgroup_load(m, x, 8);  // <-
  y[i] = float(m.thread_elements()[0]);
}
