// Elements found by MLX's own function of shape and strides.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 4 4 8
// output: y float32 4 4 8
// expects: abs(x)

[[kernel]] void custom_kernel_strided_by_location(
  const device float* x [[buffer(0)]],
  const constant int* x_shape [[buffer(1)]],
  const constant int64_t* x_strides [[buffer(2)]],
  const constant int& x_ndim [[buffer(3)]],
  device float* y [[buffer(4)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint elem = thread_position_in_grid.x;
  uint at = elem_to_loc(elem, x_shape, x_strides, x_ndim);
  y[elem] = metal::abs(x[at]);
}
