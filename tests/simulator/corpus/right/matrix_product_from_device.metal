// A matrix product without threadgroup memory: both sides loaded from device memory, one of them transposed.
// grid: 64 2 1
// threadgroup: 32 1 1
// input: x float32 16 24
// input: w float32 16 24
// output: y float32 16 16
// expects: x @ w.T

[[kernel]] void custom_kernel_matrix_product_from_device(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint2 tile = threadgroup_position_in_grid.xy * 8u;
  simdgroup_float8x8 a, b, sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint k = 0u; k < 24u; k += 8u) {
    simdgroup_load(a, x + tile.y * 24u + k, 24);
    simdgroup_load(b, w + tile.x * 24u + k, 24, ulong2(0ul, 0ul), true);
    simdgroup_multiply_accumulate(sum, a, b, sum);
  }
  simdgroup_store(sum, y + tile.y * 16u + tile.x, 16);
}
