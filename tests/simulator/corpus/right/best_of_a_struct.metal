// The maximum and where it is, through pairs in threadgroup memory.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y int32 2
// expects: x.reshape(2,64).argmax(1)

struct cj_pair {
  float value;
  int index;
};

[[kernel]] void custom_kernel_best_of_a_struct(
  const device float* x [[buffer(0)]],
  device int* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup cj_pair best[64];
  best[l].value = x[g];
  best[l].index = int(l);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 32u; step > 0u; step /= 2u) {
    if (l < step && best[l + step].value > best[l].value) best[l] = best[l + step];
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  if (l == 0u) y[threadgroup_position_in_grid.x] = best[0].index;
}
