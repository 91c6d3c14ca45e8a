// A matrix loaded from an array of a thread.
// stage: type
// says: no matching function

[[kernel]] void custom_kernel_matrix_load_from_own_array(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float own[64];
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, own, 8);  // <-
  y[i] = m.thread_elements()[0];
}
