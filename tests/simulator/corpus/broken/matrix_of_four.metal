// A simdgroup matrix of 4 x 4.
// stage: type
// says: 8 x 8

[[kernel]] void custom_kernel_matrix_of_four(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  simdgroup_matrix<float, 4, 4> m;  // <-
  y[i] = x[i];
}
