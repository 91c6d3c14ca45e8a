// A threadgroup array of a helper function.
// stage: lint
// says: outermost block

inline float cj_stage(float v, uint at) {
  threadgroup float tile[64];  // <-
  tile[at] = v;
  return tile[at];
}

[[kernel]] void custom_kernel_threadgroup_array_in_function(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_stage(x[i], i % 64u);
}
