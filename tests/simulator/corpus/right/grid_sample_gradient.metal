// The gradient of bilinear sampling, added by atomics, as in MLX's documentation.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// input: grid float32 256
// output: y float32 8
// init: 0
// expects: (lambda f: np.array([sum((max(0,1-abs(f[i]-k)))*x[i] for i in range(128)) for k in range(8)]))((grid.reshape(-1,2)[:,0]*0.2+1)*3.5)

[[kernel]] void custom_kernel_grid_sample_gradient(
  const device float* x [[buffer(0)]],
  const device float* grid [[buffer(1)]],
  device atomic<float>* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  float fx = (grid[2u * g] * 0.2f + 1.0f) * 0.5f * 7.0f;
  int x0 = int(metal::floor(fx));
  float weight = fx - float(x0);
  if (x0 >= 0 && x0 < 8) atomic_fetch_add_explicit(&y[x0], (1.0f - weight) * x[g], memory_order_relaxed);
  if (x0 + 1 >= 0 && x0 + 1 < 8) atomic_fetch_add_explicit(&y[x0 + 1], weight * x[g], memory_order_relaxed);
}
