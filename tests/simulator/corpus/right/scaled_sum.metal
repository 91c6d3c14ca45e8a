// Elementwise, with a guarded tail and a scalar argument.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 100
// input: w float32 100
// input: alpha float32
// output: y float32 100
// expects: x * alpha + w

[[kernel]] void custom_kernel_scaled_sum(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  const constant float& alpha [[buffer(2)]],
  device float* y [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  if (g < 100u) y[g] = metal::fma(x[g], alpha, w[g]);
}
