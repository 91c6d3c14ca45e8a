// The example of MLX's documentation, a template over the type.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: inp float16 128
// output: out float16 128
// expects: np.exp(inp)

template <typename T>
[[kernel]] void custom_kernel_documented_exp__float16_t(
  const device half* inp [[buffer(0)]],
  device half* out [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint elem = thread_position_in_grid.x;
  T tmp = inp[elem];
  out[elem] = metal::exp(tmp);
}

template [[host_name("custom_kernel_documented_exp__float16_t")]] [[kernel]] decltype(custom_kernel_documented_exp__float16_t<float16_t>) custom_kernel_documented_exp__float16_t<float16_t>;
