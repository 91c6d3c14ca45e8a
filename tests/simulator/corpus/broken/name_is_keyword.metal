// A variable named as a function qualifier of Metal.
// stage: lint
// says: reserved

[[kernel]] void custom_kernel_name_is_keyword(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  int vertex = int(i);  // <-
  y[i] = float(vertex);
}
