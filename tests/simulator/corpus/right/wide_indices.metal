// Indices in 64 bits, and a shift that stays within its width.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: x * 2.0 ** (np.arange(128) % 8)

[[kernel]] void custom_kernel_wide_indices(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  ulong at = ulong(g) * 4294967296ul;
  long back = long(at >> 32ul);
  y[g] = x[size_t(back)] * float(1u << (g % 8u));
}
