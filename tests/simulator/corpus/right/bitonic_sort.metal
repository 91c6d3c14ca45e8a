// A threadgroup sorts its values in place in threadgroup memory.
// grid: 64 1 1
// threadgroup: 64 1 1
// input: x float32 64
// output: y float32 64
// expects: np.sort(x)

[[kernel]] void custom_kernel_bitonic_sort(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]]) {
  uint l = thread_index_in_threadgroup;
  threadgroup float v[64];
  v[l] = x[l];
  for (uint size = 2u; size <= 64u; size *= 2u) {
    for (uint step = size / 2u; step > 0u; step /= 2u) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      uint other = l ^ step;
      if (other > l) {
        bool up = (l & size) == 0u;
        float a = v[l], b = v[other];
        if ((a > b) == up) {
          v[l] = b;
          v[other] = a;
        }
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[l] = v[l];
}
