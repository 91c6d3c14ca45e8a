// A vector of four from two numbers.
// stage: type
// says: wrong number of components

[[kernel]] void custom_kernel_too_few_components(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float4 v = float4(x[i], 1.0f);  // <-
  y[i] = v.x;
}
