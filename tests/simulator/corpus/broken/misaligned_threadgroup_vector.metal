// Rows of five halves read as half4.
// stage: check
// says: misaligned
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_misaligned_threadgroup_vector(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup half tile[8 * 5];
  if (l < 40u) tile[l] = half(x[g]);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  half4 v = *((const threadgroup half4*)(tile + (l % 8u) * 5u));  // <-
  y[g] = float(v.x);
}
