// A tiled matrix product whose K loop lacks the barrier between loads and products.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 8 32
// input: w float32 32 8
// output: y float32 8 8

[[kernel]] void custom_kernel_k_loop_without_first_barrier(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint row = l / 8u, column = l % 8u;
  threadgroup float a[64];
  threadgroup float b[64];
  float sum = 0.0f;
  for (uint k = 0u; k < 32u; k += 8u) {
    a[l] = x[row * 32u + k + column];  // <-
    b[l] = w[(k + row) * 8u + column];  // <-
    for (uint j = 0u; j < 8u; ++j) sum = metal::fma(a[row * 8u + j], b[j * 8u + column], sum);  // <-
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  y[row * 8u + column] = sum;
}
