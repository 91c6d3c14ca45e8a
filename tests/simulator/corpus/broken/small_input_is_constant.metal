// MLX puts an input of fewer than eight elements into `constant`; the function wants `device`.
// stage: type
// says: no matching function
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// input: w float32 3
// output: y float32 128

float cj_weighted(const device float* x, const device float* w, uint at) {
  return x[at] * (w[0] + w[1] + w[2]);
}

[[kernel]] void custom_kernel_small_input_is_constant(
  const device float* x [[buffer(0)]],
  const constant float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  y[g] = cj_weighted(x, w, g);  // <-
}
