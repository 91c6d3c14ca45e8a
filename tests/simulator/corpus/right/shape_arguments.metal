// Shape and strides as MLX hands them over.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 6 10
// output: y float32 6 10
// expects: 2 * x

[[kernel]] void custom_kernel_shape_arguments(
  const device float* x [[buffer(0)]],
  const constant int* x_shape [[buffer(1)]],
  const constant int64_t* x_strides [[buffer(2)]],
  const constant int& x_ndim [[buffer(3)]],
  device float* y [[buffer(4)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint g = thread_position_in_grid.x;
  int rows = x_shape[0], columns = x_shape[1];
  int row = int(g) / columns, column = int(g) % columns;
  if (row >= rows) return;
  y[g] = x[row * x_strides[0] + column * x_strides[1]] * float(x_ndim);
}
