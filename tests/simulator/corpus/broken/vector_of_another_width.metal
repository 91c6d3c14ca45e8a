// The first three components assigned to a vector of four.
// stage: type
// says: assigning

[[kernel]] void custom_kernel_vector_of_another_width(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float4 f = float4(x[i]);
  f = f.xyz;  // <-
  y[i] = f.x;
}
