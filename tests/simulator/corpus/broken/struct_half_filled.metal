// Of a pair in threadgroup memory, only the value is written.
// stage: check
// says: nobody has written
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

struct cj_pair {
  float value;
  int index;
};

[[kernel]] void custom_kernel_struct_half_filled(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup cj_pair best[64];
  best[l].value = x[g];
  if (l % 2u == 0u) best[l].index = int(l);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[g] = best[63u - l].value + float(best[63u - l].index);  // <-
}
