// A header of MLX, which its compiler does not find.
// stage: type
// says: file not found

#include "mlx/backend/metal/kernels/utils.h"  // <-

[[kernel]] void custom_kernel_include_of_mlx(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[i];
}
