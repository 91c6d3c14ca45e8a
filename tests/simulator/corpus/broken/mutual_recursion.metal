// Two functions that call each other.
// stage: lint
// says: recursion

inline bool cj_odd(int n);
inline bool cj_even(int n) {  // <-
  return n == 0 ? true : cj_odd(n - 1);
}
inline bool cj_odd(int n) {  // <-
  return n == 0 ? false : cj_even(n - 1);
}

[[kernel]] void custom_kernel_mutual_recursion(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = cj_even(int(i)) ? x[i] : 0.0f;
}
