// A table in the constant address space inside of a kernel.
// stage: lint
// says: inside of a function

[[kernel]] void custom_kernel_local_constant_table(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  constant constexpr float taps[2] = {0.25f, 0.75f};  // <-
  y[i] = x[i] * taps[i & 1u];
}
