// A product without the matrix it is added to.
// stage: type
// says: no matching function

[[kernel]] void custom_kernel_matrix_product_of_three(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  simdgroup_matrix<float, 8, 8> a, b, d;
  simdgroup_multiply_accumulate(d, a, b);  // <-
  y[i] = d.thread_elements()[0] + x[i];
}
