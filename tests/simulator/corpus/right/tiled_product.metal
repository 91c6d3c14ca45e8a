// A matrix product with one buffer and two barriers a round.
// grid: 16 16 1
// threadgroup: 8 8 1
// input: x float32 12 20
// input: w float32 20 16
// output: y float32 12 16
// expects: x @ w

[[kernel]] void custom_kernel_tiled_product(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]]) {
  uint2 at = thread_position_in_threadgroup.xy;
  uint2 here = thread_position_in_grid.xy;
  threadgroup float a[8][8];
  threadgroup float b[8][8];
  float sum = 0.0f;
  for (uint k = 0u; k < 20u; k += 8u) {
    a[at.y][at.x] = here.y < 12u && k + at.x < 20u ? x[here.y * 20u + k + at.x] : 0.0f;
    b[at.y][at.x] = k + at.y < 20u ? w[(k + at.y) * 16u + here.x] : 0.0f;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint j = 0u; j < 8u; ++j) sum = metal::fma(a[at.y][j], b[j][at.x], sum);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  if (here.y < 12u) y[here.y * 16u + here.x] = sum;
}
