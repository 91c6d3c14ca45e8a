// A thread adds to a sum that nobody has set.
// stage: check
// says: nobody has written
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_uninitialised_accumulator(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float sums[64];
  for (uint i = 0u; i < 2u; i++) {
    sums[l] += x[l + 64u * i];  // <-
  }
  y[g] = sums[l];
}
