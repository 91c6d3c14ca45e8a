// The bits of a float as a ushort.
// stage: type
// says: sizes differ

[[kernel]] void custom_kernel_as_type_of_another_size(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = float(as_type<ushort>(x[i]));  // <-
}
