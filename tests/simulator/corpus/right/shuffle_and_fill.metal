// A difference to the lane before, the first lane against a given value.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: (x.reshape(4, 32) - np.pad(x.reshape(4, 32), ((0, 0), (1, 0)))[:, :32]).reshape(-1)

[[kernel]] void custom_kernel_shuffle_and_fill(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  float before = simd_shuffle_and_fill_up(x[g], 0.0f, 1);
  y[g] = x[g] - before;
}
