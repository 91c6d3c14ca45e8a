// A slot that broadcasts a sum is overwritten in the next round, while others may still read it.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 4 64
// output: y float32 4 64

[[kernel]] void custom_kernel_slot_reused_by_the_next_round(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  threadgroup float total;
  for (uint row = 0u; row < 4u; ++row) {
    if (l == 0u) {
      float sum = 0.0f;
      for (uint k = 0u; k < 64u; ++k) sum += x[row * 64u + k];
      total = sum;  // <-
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[row * 64u + l] = x[row * 64u + l] / total;  // <-
  }
}
