// Two outputs of two types from one pass.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// output: z bool_ 128
// expects: x * x
// expects: x > 0

[[kernel]] void custom_kernel_two_outputs(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device bool* z [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  float v = x[g];
  y[g] = v * v;
  z[g] = v > 0.0f;
}
