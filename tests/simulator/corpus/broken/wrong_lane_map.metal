// Elements of a simdgroup matrix written where another lane's belong.
// stage: check
// says: race
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_wrong_lane_map(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint lane = thread_index_in_simdgroup;
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, x, 8);
  uint row = lane / 8u, column = lane % 8u;
  y[row * 8u + column] = m.thread_elements()[0];  // <-
  y[row * 8u + column + 1u] = m.thread_elements()[1];  // <-
}
