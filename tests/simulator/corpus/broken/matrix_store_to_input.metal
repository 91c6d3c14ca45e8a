// A matrix stored to an input.
// stage: type
// says: no matching function

[[kernel]] void custom_kernel_matrix_store_to_input(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  simdgroup_matrix<float, 8, 8> m = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
  simdgroup_store(m, x, 8);  // <-
  y[i] = x[i];
}
