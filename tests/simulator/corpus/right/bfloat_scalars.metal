// bfloat in and out, float between.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x bfloat16 128
// output: y bfloat16 128
// expects: x / (1 + np.exp(-x))

[[kernel]] void custom_kernel_bfloat_scalars(
  const device bfloat16_t* x [[buffer(0)]],
  device bfloat16_t* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  float v = float(x[g]);
  v = v / (1.0f + metal::precise::exp(-v));
  y[g] = bfloat16_t(v);
}
