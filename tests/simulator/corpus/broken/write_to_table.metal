// An assignment to a table at program scope.
// stage: type
// says: const

constant constexpr float cj_table[2] = {1.0f, 2.0f};

[[kernel]] void custom_kernel_write_to_table(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  cj_table[i & 1u] = 3.0f;  // <-
  y[i] = cj_table[0];
}
