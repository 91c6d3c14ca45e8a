// A simdgroup matrix of integers.
// stage: type
// says: float, half or bfloat

[[kernel]] void custom_kernel_matrix_of_int(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  simdgroup_matrix<int, 8, 8> m;  // <-
  y[i] = x[i];
}
