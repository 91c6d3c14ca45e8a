// Assembler text.
// stage: lint
// says: asm

[[kernel]] void custom_kernel_inline_assembler(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  asm("nop");  // <-
  y[i] = x[i];
}
