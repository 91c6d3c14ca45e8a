// A lambda.
// stage: lint
// says: lambda

[[kernel]] void custom_kernel_lambda_expression(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = [](float v) { return v + 1.0f; }(x[i]);  // <-
}
