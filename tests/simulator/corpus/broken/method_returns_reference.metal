// A method that returns a reference to its object, without saying where that is.
// stage: type
// says: address space

struct cj_four {
  float v[4];
  thread float& at(int k) { return v[k]; }  // <-
};

[[kernel]] void custom_kernel_method_returns_reference(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  cj_four a;
  a.at(0) = x[i];
  y[i] = a.v[0];
}
