// Normalised rows, four values a load, with sums that travel by shuffles.
// grid: 96 1 1
// threadgroup: 32 1 1
// input: x float32 3 128
// input: eps float32
// output: y float32 3 128
// expects: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps * eps)

[[kernel]] void custom_kernel_layer_norm(
  const device float* x [[buffer(0)]],
  const constant float& eps [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x;
  float4 v = ((const device float4*)x)[row * 32u + lane];
  float sum = v.x + v.y + v.z + v.w;
  for (ushort d = 16; d > 0; d /= 2) sum += simd_shuffle_xor(sum, d);
  v -= float4(sum / 128.0f);
  float square = dot(v, v);
  for (ushort d = 16; d > 0; d /= 2) square += simd_shuffle_xor(square, d);
  ((device float4*)y)[row * 32u + lane] = v * metal::precise::rsqrt(square / 128.0f + eps * eps);
}
