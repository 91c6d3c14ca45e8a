// A character in a string of the text that Metal does not read.
// stage: lint
// says: not ASCII

[[kernel]] void custom_kernel_not_ascii(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float über = x[i];  // <-
  y[i] = über;  // <-
}
