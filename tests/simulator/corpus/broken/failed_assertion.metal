// A static assertion that does not hold.
// stage: compile
// says: tile
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float32 128
// output: y float32 128

constant constexpr int cj_tile = 6;

[[kernel]] void custom_kernel_failed_assertion(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  static_assert(cj_tile % 4 == 0, "the tile is a multiple of four");  // <-
  y[i] = x[i];
}
