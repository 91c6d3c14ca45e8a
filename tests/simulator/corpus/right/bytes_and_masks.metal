// Bytes, masks of bits and their population count.
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x uint8 256
// output: y uint8 32
// output: z int32 32
// expects: (x.reshape(-1, 8) % 2 * 2 ** np.arange(8)).sum(-1)
// expects: (x.reshape(-1, 8) % 2).sum(-1)

[[kernel]] void custom_kernel_bytes_and_masks(
  const device uint8_t* x [[buffer(0)]],
  device uint8_t* y [[buffer(1)]],
  device int* z [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint bits = 0u;
  for (uint k = 0u; k < 8u; ++k) bits |= uint(x[g * 8u + k] & 1) << k;
  y[g] = uint8_t(bits);
  z[g] = int(popcount(bits));
}
