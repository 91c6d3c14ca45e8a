// The third component of a vector of two.
// stage: compile
// says: z
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

[[kernel]] void custom_kernel_missing_component(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  float2 v = float2(x[i], 1.0f);
  y[i] = v.z;  // <-
}
