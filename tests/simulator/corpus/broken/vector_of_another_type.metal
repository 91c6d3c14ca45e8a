// A vector of half that becomes one of float by itself.
// stage: type
// says: cannot initialize

[[kernel]] void custom_kernel_vector_of_another_type(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  half4 h = half4(half(x[i]));
  float4 f = h;  // <-
  y[i] = f.x;
}
