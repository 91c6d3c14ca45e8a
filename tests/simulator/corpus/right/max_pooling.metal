// Windows of 2 x 2 with NaN kept, as MLX's Maximum keeps it.
// grid: 8 4 1
// threadgroup: 8 4 1
// input: x float32 8 16
// output: y float32 4 8
// expects: x.reshape(4, 2, 8, 2).max((1, 3))

[[kernel]] void custom_kernel_max_pooling(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint2 at = thread_position_in_grid.xy;
  float best = -INFINITY;
  for (uint k = 0u; k < 4u; ++k) {
    float v = x[(at.y * 2u + k / 2u) * 16u + at.x * 2u + k % 2u];
    best = metal::isnan(best) ? best : (best > v ? best : v);
  }
  y[at.y * 8u + at.x] = best;
}
