// A call with too few arguments.
// stage: compile
// says: cj_add
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

inline float cj_add(float a, float b) { return a + b; }

[[kernel]] void custom_kernel_wrong_argument_count(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_add(x[i]);  // <-
}
