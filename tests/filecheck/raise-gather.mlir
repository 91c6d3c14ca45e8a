// RUN: convjit-opt -p raise-gather --split-input-file %s | filecheck %s

// Rows 0, 0, 0, 1, 1, 2, 2, 3: those above the rows of an image that is made twice as high.
func.func @forward(%x: tensor<2x4x3x8xf32>, %w: tensor<8x1x1x8xf32>) -> tensor<8x2x1x3x8xf32> {
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x4x3x8xf32>, tensor<8x1x1x8xf32>) -> tensor<2x4x3x8xf32>
  %half = mlx.constant 0.5 : f64 : tensor<f32>
  %quarter = mlx.constant 0.25 : f64 : tensor<f32>
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %n = mlx.primitive "Arange"() [0.000000e+00 : f64, 8.000000e+00 : f64, 1.000000e+00 : f64] : () -> tensor<8xf32>
  %hb = mlx.primitive "Broadcast"(%half) [array<i64: 8>] : (tensor<f32>) -> tensor<8xf32>
  %m = mlx.primitive "Multiply"(%n, %hb) [] : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %qb = mlx.primitive "Broadcast"(%quarter) [array<i64: 8>] : (tensor<f32>) -> tensor<8xf32>
  %s = mlx.primitive "Subtract"(%m, %qb) [] : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %zb = mlx.primitive "Broadcast"(%zero) [array<i64: 8>] : (tensor<f32>) -> tensor<8xf32>
  %p = mlx.primitive "Maximum"(%s, %zb) [] : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %f = mlx.primitive "Floor"(%p) [] : (tensor<8xf32>) -> tensor<8xf32>
  %i = mlx.primitive "AsType"(%f) [ui32] : (tensor<8xf32>) -> tensor<8xui32>
  %g = mlx.primitive "Gather"(%c, %i) [array<i64: 1>, array<i64: 2, 1, 3, 8>] : (tensor<2x4x3x8xf32>, tensor<8xui32>) -> tensor<8x2x1x3x8xf32>
  return %g : tensor<8x2x1x3x8xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %0 = conv.rearrange(%c, %c, %c) parts <[2, 3, 24] from 0 [96, 0, 1] to 0 [192, 24, 1], [2, 2, 2, 24] from 24 [96, 24, 0, 1] to 72 [192, 48, 24, 1], [2, 24] from 72 [96, 1] to 168 [192, 1]> layer "gather"
// CHECK-NEXT:    %g = mlx.primitive "Transpose"(%0) [array<i64: 1, 0, 2, 3, 4>]
// CHECK-NEXT:    func.return %g

// -----

// Places that an input tells stay.
func.func @forward(%x: tensor<2x4x3x8xf32>, %w: tensor<8x1x1x8xf32>, %i: tensor<8xui32>) -> tensor<8x2x1x3x8xf32> {
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x4x3x8xf32>, tensor<8x1x1x8xf32>) -> tensor<2x4x3x8xf32>
  %g = mlx.primitive "Gather"(%c, %i) [array<i64: 1>, array<i64: 2, 1, 3, 8>] : (tensor<2x4x3x8xf32>, tensor<8xui32>) -> tensor<8x2x1x3x8xf32>
  return %g : tensor<8x2x1x3x8xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %g = mlx.primitive "Gather"(%c, %i)
