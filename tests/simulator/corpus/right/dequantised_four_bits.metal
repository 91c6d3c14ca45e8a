// Eight 4-bit numbers a word, with a scale and a bias for each 32, in bfloat.
// grid: 256 1 1
// threadgroup: 64 1 1
// input: x uint32 32
// input: s bfloat16 8
// input: b bfloat16 8
// output: y bfloat16 256
// expects: s.repeat(32)*((x.astype(np.uint64).repeat(8)>>(4*(np.arange(256,dtype=np.uint64)%np.uint64(8))))&np.uint64(15)).astype(float)+b.repeat(32)

[[kernel]] void custom_kernel_dequantised_four_bits(
  const device uint* x [[buffer(0)]],
  const device bfloat16_t* s [[buffer(1)]],
  const device bfloat16_t* b [[buffer(2)]],
  device bfloat16_t* y [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  uint word = x[g / 8u];
  uint nibble = (word >> (4u * (g % 8u))) & 0xfu;
  float scale = float(s[g / 32u]);
  float bias = float(b[g / 32u]);
  y[g] = bfloat16_t(metal::fma(scale, float(nibble), bias));
}
