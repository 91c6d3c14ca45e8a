// Templates, structs with methods and a functor, in the style of MLX's own kernels.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 64 4
// output: y float32 64
// expects: x.sum(-1)

struct cj_plus {
  template <typename T>
  METAL_FUNC T operator()(T a, T b) const thread {
    return a + b;
  }
};

template <typename T, int N>
struct cj_tile {
  static constant constexpr const int size = N;
  const device T* from;

  METAL_FUNC cj_tile(const device T* at) thread : from(at) {}

  METAL_FUNC void load(thread T (&to)[N]) const thread {
#pragma clang loop unroll(full)
    for (int i = 0; i < size; ++i) to[i] = from[i];
  }
};

template <typename T, typename Op, int N>
METAL_FUNC T cj_reduce(thread const T (&v)[N]) {
  Op op;
  T sum = v[0];
  for (int i = 1; i < N; ++i) sum = op(sum, v[i]);
  return sum;
}

[[kernel]] void custom_kernel_helper_templates(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  using tile_t = cj_tile<float, 4>;
  tile_t tile(x + g * 4u);
  float own[4];
  tile.load(own);
  y[g] = cj_reduce<float, cj_plus>(own);
}
