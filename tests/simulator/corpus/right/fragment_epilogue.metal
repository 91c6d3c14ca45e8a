// An 8x8 product whose fragments get a bias and a ReLU in registers, by thread_elements.
// grid: 32 1 1
// threadgroup: 32 1 1
// input: x float32 8 16
// input: w float32 16 8
// input: bias float32 8
// output: y float32 8 8
// expects: np.maximum(x@w+bias,0)

[[kernel]] void custom_kernel_fragment_epilogue(
  const device float* x [[buffer(0)]],
  const device float* w [[buffer(1)]],
  const device float* bias [[buffer(2)]],
  device float* y [[buffer(3)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  simdgroup_matrix<float, 8, 8> a, b, c = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint k = 0u; k < 16u; k += 8u) {
    simdgroup_load(a, x + k, 16);
    simdgroup_load(b, w + k * 8u, 8);
    simdgroup_multiply_accumulate(c, a, b, c);
  }
  uint quad = l / 4u;
  uint row = (quad & 4u) + (l / 2u) % 4u;
  uint column = (quad & 2u) * 2u + (l % 2u) * 2u;
  c.thread_elements()[0] = metal::max(c.thread_elements()[0] + bias[column], 0.0f);
  c.thread_elements()[1] = metal::max(c.thread_elements()[1] + bias[column + 1u], 0.0f);
  y[row * 8u + column] = c.thread_elements()[0];
  y[row * 8u + column + 1u] = c.thread_elements()[1];
}
