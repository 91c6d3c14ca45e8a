// The place of the largest value of each row, by shuffles of a pair.
// grid: 288 1 1
// threadgroup: 32 1 1
// input: x float32 9 32
// output: y uint32 9
// expects: x.argmax(-1)

[[kernel]] void custom_kernel_arg_max(
  const device float* x [[buffer(0)]],
  device uint* y [[buffer(1)]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x;
  float best = x[row * 32u + lane];
  uint place = lane;
  for (ushort d = 16; d > 0; d >>= 1) {
    float other = simd_shuffle_down(best, d);
    uint other_place = simd_shuffle_down(place, d);
    if (other > best) {
      best = other;
      place = other_place;
    }
  }
  if (lane == 0u) y[row] = place;
}
