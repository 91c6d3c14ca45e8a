// A kernel written for four simdgroups is launched with two.
// stage: check
// says: never written
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 256
// output: y float32 256

[[kernel]] void custom_kernel_too_few_simdgroups(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint at = threadgroup_position_in_grid.x * 128u + simdgroup_index_in_threadgroup * 32u + lane;
  y[at] = x[at];
}
