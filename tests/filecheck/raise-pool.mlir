// RUN: convjit-opt -p raise-pool --split-input-file %s | filecheck %s

// Windows that overlap; padding that does not count goes into the window.
func.func @forward(%x: tensor<2x9x9x4xf32>, %w: tensor<4x1x1x4xf32>) -> tensor<2x5x5x4xf32> {
  %nothing = mlx.constant 0xfff0000000000000 : f64 : tensor<f32>
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x9x9x4xf32>, tensor<4x1x1x4xf32>) -> tensor<2x9x9x4xf32>
  %p = mlx.primitive "Pad"(%c, %nothing) [array<i64: 0, 1, 2, 3>, array<i64: 0, 1, 1, 0>, array<i64: 0, 1, 1, 0>] : (tensor<2x9x9x4xf32>, tensor<f32>) -> tensor<2x11x11x4xf32>
  %f = mlx.primitive "Flatten"(%p) [0 : i64, 3 : i64] : (tensor<2x11x11x4xf32>) -> tensor<968xf32>
  %v = mlx.primitive "AsStrided"(%f) [array<i64: 2, 5, 5, 3, 3, 4>, array<i64: 484, 88, 8, 44, 4, 1>, 0 : i64] : (tensor<968xf32>) -> tensor<2x5x5x3x3x4xf32>
  %r = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 3, 4>] : (tensor<2x5x5x3x3x4xf32>) -> tensor<2x5x5x1x1x4xf32>
  %y = mlx.primitive "Squeeze"(%r) [array<i64: 3, 4>] : (tensor<2x5x5x1x1x4xf32>) -> tensor<2x5x5x4xf32>
  return %y : tensor<2x5x5x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %y = conv.pool "max" of %c kernel <[3, 3]> window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 4> layer "pool" : tensor<2x9x9x4xf32> -> tensor<2x5x5x4xf32>
// CHECK-NEXT:    func.return %y

// -----

// Windows side by side, in one dimension and in three; the second pool has a name of its own. One result keeps its axes.
func.func @forward(%x: tensor<2x8x4xf16>, %w: tensor<4x1x4xf16>, %z: tensor<2x4x4x6x3xf32>) -> (tensor<2x4x4xf16>, tensor<2x2x2x3x1x1x1x3xf32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x8x4xf16>, tensor<4x1x4xf16>) -> tensor<2x8x4xf16>
  %s = mlx.primitive "Reshape"(%c) [array<i64: 2, 4, 2, 4>] : (tensor<2x8x4xf16>) -> tensor<2x4x2x4xf16>
  %t = mlx.primitive "Transpose"(%s) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf16>) -> tensor<2x4x2x4xf16>
  %r = mlx.primitive "Reduce"(%t) [2 : i64, array<i64: 2>] : (tensor<2x4x2x4xf16>) -> tensor<2x4x1x4xf16>
  %y = mlx.primitive "Squeeze"(%r) [array<i64: 2>] : (tensor<2x4x1x4xf16>) -> tensor<2x4x4xf16>
  %s3 = mlx.primitive "Reshape"(%z) [array<i64: 2, 2, 2, 2, 2, 3, 2, 3>] : (tensor<2x4x4x6x3xf32>) -> tensor<2x2x2x2x2x3x2x3xf32>
  %t3 = mlx.primitive "Transpose"(%s3) [array<i64: 0, 1, 3, 5, 2, 4, 6, 7>] : (tensor<2x2x2x2x2x3x2x3xf32>) -> tensor<2x2x2x3x2x2x2x3xf32>
  %r3 = mlx.primitive "Reduce"(%t3) [5 : i64, array<i64: 4, 5, 6>] : (tensor<2x2x2x3x2x2x2x3xf32>) -> tensor<2x2x2x3x1x1x1x3xf32>
  return %y, %r3 : tensor<2x4x4xf16>, tensor<2x2x2x3x1x1x1x3xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %y = conv.pool "sum" of %c kernel <[2]> window <strides = [2], pad = [0] : [0], {{.*}}> layer "pool" : tensor<2x8x4xf16> -> tensor<2x4x4xf16>
// CHECK-NEXT:    %r3 = conv.pool "max" of %z kernel <[2, 2, 2]> window <strides = [2, 2, 2], {{.*}}> layer "pool#2" : tensor<2x4x4x6x3xf32> -> tensor<2x2x2x3x1x1x1x3xf32>

// -----

// The window of a global pool is the image; who reads the result with all its axes gets it so.
func.func @forward(%x: tensor<2x5x5x4xf32>, %w: tensor<4x1x1x4xf32>) -> (tensor<2x4xf32>, tensor<2x1x1x4xf32>) {
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x5x5x4xf32>, tensor<4x1x1x4xf32>) -> tensor<2x5x5x4xf32>
  %r = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 1, 2>] : (tensor<2x5x5x4xf32>) -> tensor<2x1x1x4xf32>
  %y = mlx.primitive "Squeeze"(%r) [array<i64: 1, 2>] : (tensor<2x1x1x4xf32>) -> tensor<2x4xf32>
  return %y, %r : tensor<2x4xf32>, tensor<2x1x1x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %y = conv.pool "sum" of %c kernel <[5, 5]> window <strides = [1, 1], pad = [0, 0] : [0, 0], {{.*}}> layer "pool" : tensor<2x5x5x4xf32> -> tensor<2x4xf32>
// CHECK-NEXT:    %r = mlx.primitive "Reshape"(%y) [array<i64: 2, 1, 1, 4>]
// CHECK-NEXT:    func.return %y, %r

// -----

// Padding that counts stays: zeros in a maximum. So does what else reads the windows, as gradients do.
func.func @forward(%x: tensor<1x4x4xf32>, %w: tensor<4x1x4xf32>) -> (tensor<1x5x4xf32>, tensor<1x5x2x4xf32>) {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %p = mlx.primitive "Pad"(%c, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 1, 0>] : (tensor<1x4x4xf32>, tensor<f32>) -> tensor<1x6x4xf32>
  %f = mlx.primitive "Flatten"(%p) [0 : i64, 2 : i64] : (tensor<1x6x4xf32>) -> tensor<24xf32>
  %v = mlx.primitive "AsStrided"(%f) [array<i64: 1, 5, 2, 4>, array<i64: 24, 4, 4, 1>, 0 : i64] : (tensor<24xf32>) -> tensor<1x5x2x4xf32>
  %r = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 2>] : (tensor<1x5x2x4xf32>) -> tensor<1x5x1x4xf32>
  %y = mlx.primitive "Squeeze"(%r) [array<i64: 2>] : (tensor<1x5x1x4xf32>) -> tensor<1x5x4xf32>
  return %y, %v : tensor<1x5x4xf32>, tensor<1x5x2x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %p = mlx.primitive "Pad"(%c, %zero)
// CHECK:         %v = mlx.primitive "AsStrided"
// CHECK-NEXT:    %y = conv.pool "max" of %p kernel <[2]> window <strides = [1], pad = [0] : [0], {{.*}}> layer "pool" : tensor<1x6x4xf32> -> tensor<1x5x4xf32>
// CHECK-NEXT:    func.return %y, %v

// -----

// What stays: dilated windows, those that begin further on, fewer than fit, other orders of axes, other reductions,
// other types, and sums of a single image, which `fuse-elementwise` takes.
func.func @forward(%x: tensor<1x8x4xf32>, %w: tensor<4x1x4xf32>, %i: tensor<2x8x4xi32>) -> (tensor<1x3x1x4xf32>, tensor<1x3x1x4xf32>, tensor<1x2x1x4xf32>, tensor<1x3x1x4xf32>, tensor<1x4x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<2x1x4xi32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x8x4xf32>, tensor<4x1x4xf32>) -> tensor<1x8x4xf32>
  %f = mlx.primitive "Flatten"(%c) [0 : i64, 2 : i64] : (tensor<1x8x4xf32>) -> tensor<32xf32>
  %v0 = mlx.primitive "AsStrided"(%f) [array<i64: 1, 3, 3, 4>, array<i64: 32, 8, 8, 1>, 0 : i64] : (tensor<32xf32>) -> tensor<1x3x3x4xf32>
  %dilated = mlx.primitive "Reduce"(%v0) [5 : i64, array<i64: 2>] : (tensor<1x3x3x4xf32>) -> tensor<1x3x1x4xf32>
  %v1 = mlx.primitive "AsStrided"(%f) [array<i64: 1, 3, 3, 4>, array<i64: 32, 8, 4, 1>, 4 : i64] : (tensor<32xf32>) -> tensor<1x3x3x4xf32>
  %behind = mlx.primitive "Reduce"(%v1) [5 : i64, array<i64: 2>] : (tensor<1x3x3x4xf32>) -> tensor<1x3x1x4xf32>
  %v2 = mlx.primitive "AsStrided"(%f) [array<i64: 1, 2, 3, 4>, array<i64: 32, 8, 4, 1>, 0 : i64] : (tensor<32xf32>) -> tensor<1x2x3x4xf32>
  %fewer = mlx.primitive "Reduce"(%v2) [5 : i64, array<i64: 2>] : (tensor<1x2x3x4xf32>) -> tensor<1x2x1x4xf32>
  %v3 = mlx.primitive "AsStrided"(%f) [array<i64: 1, 3, 3, 4>, array<i64: 32, 8, 4, 2>, 0 : i64] : (tensor<32xf32>) -> tensor<1x3x3x4xf32>
  %spread = mlx.primitive "Reduce"(%v3) [5 : i64, array<i64: 2>] : (tensor<1x3x3x4xf32>) -> tensor<1x3x1x4xf32>
  %s = mlx.primitive "Reshape"(%c) [array<i64: 1, 2, 4, 4>] : (tensor<1x8x4xf32>) -> tensor<1x2x4x4xf32>
  %t = mlx.primitive "Transpose"(%s) [array<i64: 0, 2, 1, 3>] : (tensor<1x2x4x4xf32>) -> tensor<1x4x2x4xf32>
  %apart = mlx.primitive "Reduce"(%t) [5 : i64, array<i64: 2>] : (tensor<1x4x2x4xf32>) -> tensor<1x4x1x4xf32>
  %product = mlx.primitive "Reduce"(%c) [3 : i64, array<i64: 1>] : (tensor<1x8x4xf32>) -> tensor<1x1x4xf32>
  %total = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 1>] : (tensor<1x8x4xf32>) -> tensor<1x1x4xf32>
  %integers = mlx.primitive "Reduce"(%i) [5 : i64, array<i64: 1>] : (tensor<2x8x4xi32>) -> tensor<2x1x4xi32>
  return %dilated, %behind, %fewer, %spread, %apart, %product, %total, %integers : tensor<1x3x1x4xf32>, tensor<1x3x1x4xf32>, tensor<1x2x1x4xf32>, tensor<1x3x1x4xf32>, tensor<1x4x1x4xf32>, tensor<1x1x4xf32>, tensor<1x1x4xf32>, tensor<2x1x4xi32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NOT:     conv.pool
// CHECK:         func.return

// -----

// Far from any convolution nothing changes, nor where a backend refused.
func.func @forward(%x: tensor<2x8x4xf32>) -> tensor<2x1x4xf32> {
  %r = mlx.primitive "Reduce"(%x) [5 : i64, array<i64: 1>] : (tensor<2x8x4xf32>) -> tensor<2x1x4xf32>
  return %r : tensor<2x1x4xf32>
}
func.func @other(%x: tensor<2x8x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x1x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x8x4xf32>, tensor<4x1x4xf32>) -> tensor<2x8x4xf32>
  %r = mlx.primitive "Reduce"(%c) [5 : i64, array<i64: 1>] {refused = "its kernel does not run"} : (tensor<2x8x4xf32>) -> tensor<2x1x4xf32>
  return %r : tensor<2x1x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %r = mlx.primitive "Reduce"
// CHECK-LABEL: func.func @other
// CHECK:         %r = mlx.primitive "Reduce"
