// Sums of four neighbours, their maximum and a rotation, by quad functions.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128
// expects: np.repeat(x.reshape(-1,4).sum(1)+2*x.reshape(-1,4).max(1)+5*x.reshape(-1,4)[:,0],4)+3*x.reshape(-1,2)[:,::-1].reshape(-1)

[[kernel]] void custom_kernel_quad_sums(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float sum = quad_sum(x[g]);
  float largest = quad_max(x[g]);
  float other = quad_shuffle_xor(x[g], 1);
  float first = quad_broadcast(x[g], 0);
  y[g] = sum + 2.0f * largest + 3.0f * other + 5.0f * first;
}
