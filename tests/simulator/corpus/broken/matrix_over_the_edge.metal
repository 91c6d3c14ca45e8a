// A simdgroup matrix loaded where only six rows are left.
// stage: check
// says: out of bounds
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 6 8
// output: y float32 8 8

[[kernel]] void custom_kernel_matrix_over_the_edge(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]]) {
  simdgroup_matrix<float, 8, 8> m;
  simdgroup_load(m, x, 8);  // <-
  simdgroup_store(m, y, 8);
}
