// RMS norm of rows of 200, as MLX has it: four numbers a thread, two simdgroups.
// grid: 192 1 1
// threadgroup: 64 1 1
// input: x float32 3 200
// input: w float32 200
// output: y float32 3 200
// expects: w*x/np.sqrt((x**2).mean(1,keepdims=True)+1e-5)

[[kernel]] void custom_kernel_rms_norm(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  device float* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  threadgroup float partials[32];
  uint row = threadgroup_position_in_grid.x;
  const device float* from = x + row * 200u + l * 4u;
  float sum = 0.0f;
  if (l * 4u + 4u <= 200u) {
    for (int i = 0; i < 4; i++) {
      float v = from[i];
      sum = metal::fma(v, v, sum);
    }
  }
  sum = simd_sum(sum);
  if (simdgroup_index_in_threadgroup == 0u) partials[thread_index_in_simdgroup] = 0.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (thread_index_in_simdgroup == 0u) partials[simdgroup_index_in_threadgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float scale = metal::precise::rsqrt(simd_sum(partials[thread_index_in_simdgroup]) / 200.0f + 1.0e-5f);
  if (l * 4u + 4u <= 200u) {
    for (uint i = 0u; i < 4u; i++) y[row * 200u + l * 4u + i] = w[l * 4u + i] * (from[i] * scale);
  }
}
