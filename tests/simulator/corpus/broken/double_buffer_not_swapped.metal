// A matrix product with two buffers that loads into the buffer it is reading.
// stage: check
// says: race
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 8 32
// input: w float32 32 8
// output: y float32 8 8

[[kernel]] void custom_kernel_double_buffer_not_swapped(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  uint row = l / 8u, column = l % 8u;
  threadgroup float a[2][64];
  threadgroup float b[2][64];
  float sum = 0.0f;
  a[0][l] = x[row * 32u + column];
  b[0][l] = w[row * 8u + column];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 0u; step < 4u; ++step) {
    uint now = step & 1u;
    if (step < 3u) {
      a[now][l] = x[row * 32u + (step + 1u) * 8u + column];  // <-
      b[now][l] = w[((step + 1u) * 8u + row) * 8u + column];  // <-
    }
    for (uint j = 0u; j < 8u; ++j) sum = metal::fma(a[now][row * 8u + j], b[now][j * 8u + column], sum);  // <-
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  y[row * 8u + column] = sum;
}
