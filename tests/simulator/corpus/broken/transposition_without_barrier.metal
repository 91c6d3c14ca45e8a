// A tile is transposed through threadgroup memory without a barrier.
// stage: check
// says: race
// grid: 8 8 1
// threadgroup: 8 8 1
// input: x float32 8 8
// output: y float32 8 8

[[kernel]] void custom_kernel_transposition_without_barrier(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]]) {
  uint2 at = thread_position_in_threadgroup.xy;
  threadgroup float tile[8][9];
  tile[at.y][at.x] = x[at.y * 8u + at.x];  // <-
  y[at.y * 8u + at.x] = tile[at.x][at.y];  // <-
}
