// A threadgroup array handed to a function that wants device memory.
// stage: type
// says: no matching function

inline void cj_store(device float* p, float v) { *p = v; }

[[kernel]] void custom_kernel_threadgroup_array_as_device(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;

  threadgroup float tile[64];
  cj_store(tile, x[i]);  // <-
  y[i] = tile[0];
}
