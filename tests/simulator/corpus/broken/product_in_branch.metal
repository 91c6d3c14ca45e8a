// Half of the lanes skip a product of simdgroup matrices.
// stage: check
// says: simdgroup_multiply_accumulate
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 8 8
// input: w float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_product_in_branch(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint lane = thread_index_in_simdgroup;
  simdgroup_matrix<float, 8, 8> a, b, c;
  simdgroup_load(a, x, 8);
  simdgroup_load(b, w, 8);
  c = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  if (lane < 16u) simdgroup_multiply_accumulate(c, a, b, c);  // <-
  simdgroup_store(c, y, 8);
}
