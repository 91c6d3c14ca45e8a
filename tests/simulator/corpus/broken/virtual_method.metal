// A virtual method.
// stage: type
// says: virtual

struct cj_relu {
  virtual float apply(float v) const { return max(v, 0.0f); }  // <-
};

[[kernel]] void custom_kernel_virtual_method(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  cj_relu r;
  y[i] = r.apply(x[i]);
}
