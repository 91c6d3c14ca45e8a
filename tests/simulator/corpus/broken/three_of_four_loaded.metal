// A loader that fills three of the four values of each vector.
// stage: check
// says: uninitialised
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 256
// output: y float32 256

[[kernel]] void custom_kernel_three_of_four_loaded(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  threadgroup float tile[256];
  for (uint k = 0u; k < 3u; ++k) tile[l * 4u + k] = x[l * 4u + k];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint k = 0u; k < 4u; ++k) y[k * 64u + l] = tile[k * 64u + l];  // <-
}
