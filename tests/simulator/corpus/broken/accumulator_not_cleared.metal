// A tile that sums up in threadgroup memory starts with what lies there.
// stage: check
// says: uninitialised
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 4 64
// output: y float32 64

[[kernel]] void custom_kernel_accumulator_not_cleared(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  threadgroup float sums[64];
  for (uint k = 0u; k < 4u; ++k) sums[l] += x[k * 64u + l];  // <-
  y[l] = sums[l];
}
