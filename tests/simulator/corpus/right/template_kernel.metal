// A kernel with template arguments, as MLX instantiates it.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float16 64 3
// output: y float32 64
// expects: x.sum(-1)

template <typename T, int N, bool B>
[[kernel]] void custom_kernel_template_kernel__float_3_1(
  const device half* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  T sum = T(0);
  for (int k = 0; k < N; ++k) sum += T(x[g * N + k]);
  y[g] = B ? sum : -sum;
}

template [[host_name("custom_kernel_template_kernel__float_3_1")]] [[kernel]] decltype(custom_kernel_template_kernel__float_3_1<float, 3, 1>) custom_kernel_template_kernel__float_3_1<float, 3, 1>;
