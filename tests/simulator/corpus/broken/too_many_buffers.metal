// More buffers than a kernel can have.
// stage: lint
// says: at most 31

[[kernel]] void custom_kernel_too_many_buffers(
  const device float* x [[buffer(0)]],
  device float* y [[buffer(1)]],
  device float* y1 [[buffer(2)]],
  device float* y2 [[buffer(3)]],
  device float* y3 [[buffer(4)]],
  device float* y4 [[buffer(5)]],
  device float* y5 [[buffer(6)]],
  device float* y6 [[buffer(7)]],
  device float* y7 [[buffer(8)]],
  device float* y8 [[buffer(9)]],
  device float* y9 [[buffer(10)]],
  device float* y10 [[buffer(11)]],
  device float* y11 [[buffer(12)]],
  device float* y12 [[buffer(13)]],
  device float* y13 [[buffer(14)]],
  device float* y14 [[buffer(15)]],
  device float* y15 [[buffer(16)]],
  device float* y16 [[buffer(17)]],
  device float* y17 [[buffer(18)]],
  device float* y18 [[buffer(19)]],
  device float* y19 [[buffer(20)]],
  device float* y20 [[buffer(21)]],
  device float* y21 [[buffer(22)]],
  device float* y22 [[buffer(23)]],
  device float* y23 [[buffer(24)]],
  device float* y24 [[buffer(25)]],
  device float* y25 [[buffer(26)]],
  device float* y26 [[buffer(27)]],
  device float* y27 [[buffer(28)]],
  device float* y28 [[buffer(29)]],
  device float* y29 [[buffer(30)]],
  device float* y30 [[buffer(31)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
  y[i] = x[i];
}
