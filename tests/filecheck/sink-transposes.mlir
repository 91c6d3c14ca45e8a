// RUN: convjit-opt -p sink-transposes --split-input-file %s | filecheck %s

// A bias and a ReLU of NCHW between two convolutions: constants are broadcast anew, operands keep their order.
func.func @forward(%x: tensor<1x5x6x3xf32>, %w: tensor<4x1x1x3xf32>, %b: tensor<4x1x1xf32>, %v: tensor<2x1x1x4xf32>) -> tensor<1x5x6x2xf32> {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x5x6x3xf32>, tensor<4x1x1x3xf32>) -> tensor<1x5x6x4xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 3, 1, 2>] : (tensor<1x5x6x4xf32>) -> tensor<1x4x5x6xf32>
  %wide = mlx.primitive "Broadcast"(%b) [array<i64: 1, 4, 5, 6>] : (tensor<4x1x1xf32>) -> tensor<1x4x5x6xf32>
  %a = mlx.primitive "Add"(%t, %wide) [] : (tensor<1x4x5x6xf32>, tensor<1x4x5x6xf32>) -> tensor<1x4x5x6xf32>
  %zeros = mlx.primitive "Broadcast"(%zero) [array<i64: 1, 4, 5, 6>] : (tensor<f32>) -> tensor<1x4x5x6xf32>
  %r = mlx.primitive "Maximum"(%zeros, %a) [] : (tensor<1x4x5x6xf32>, tensor<1x4x5x6xf32>) -> tensor<1x4x5x6xf32>
  %u = mlx.primitive "Transpose"(%r) [array<i64: 0, 2, 3, 1>] : (tensor<1x4x5x6xf32>) -> tensor<1x5x6x4xf32>
  %z = conv.general %u, %v window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x5x6x4xf32>, tensor<2x1x1x4xf32>) -> tensor<1x5x6x2xf32>
  return %z : tensor<1x5x6x2xf32>
}
// CHECK: %y = conv.general
// CHECK-NEXT: %b_1 = mlx.primitive "Reshape"(%b) [array<i64: 1, 1, 1, 4>]
// CHECK-NEXT: mlx.primitive "Broadcast"(%b_1) [array<i64: 1, 5, 6, 4>]
// CHECK-NEXT: %a = mlx.primitive "Add"(%y, %
// CHECK-NEXT: %[[ZEROS:.*]] = mlx.primitive "Broadcast"(%zero) [array<i64: 1, 5, 6, 4>]
// CHECK-NEXT: %r = mlx.primitive "Maximum"(%[[ZEROS]], %a)
// CHECK-NEXT: %z = conv.general %r, %v

// -----

// A residual of the program's input: the transpose that the convolution reads serves it, too; one is left at the end.
func.func @forward(%x: tensor<1x3x5x6xf32>, %w: tensor<3x1x1x3xf32>) -> tensor<1x3x5x6xf32> {
  %u = mlx.primitive "Transpose"(%x) [array<i64: 0, 2, 3, 1>] : (tensor<1x3x5x6xf32>) -> tensor<1x5x6x3xf32>
  %y = conv.general %u, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x5x6x3xf32>, tensor<3x1x1x3xf32>) -> tensor<1x5x6x3xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 3, 1, 2>] : (tensor<1x5x6x3xf32>) -> tensor<1x3x5x6xf32>
  %a = mlx.primitive "Add"(%t, %x) [] : (tensor<1x3x5x6xf32>, tensor<1x3x5x6xf32>) -> tensor<1x3x5x6xf32>
  return %a : tensor<1x3x5x6xf32>
}
// CHECK: %u = mlx.primitive "Transpose"(%x)
// CHECK-NEXT: %y = conv.general %u, %w
// CHECK-NEXT: %a = mlx.primitive "Add"(%y, %u)
// CHECK-NEXT: %[[OUT:.*]] = mlx.primitive "Transpose"(%a) [array<i64: 0, 3, 1, 2>]
// CHECK-NEXT: return %[[OUT]]

// -----

// Axes are renamed: of a concatenation, of padding, of a mean and of the axes that go, which leaves nothing to transpose.
func.func @forward(%x: tensor<2x7x3xf32>, %w: tensor<4x1x3xf32>) -> tensor<2x8xf32> {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x7x3xf32>, tensor<4x1x3xf32>) -> tensor<2x7x4xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 2, 1>] : (tensor<2x7x4xf32>) -> tensor<2x4x7xf32>
  %e = mlx.primitive "Exp"(%t) [] : (tensor<2x4x7xf32>) -> tensor<2x4x7xf32>
  %c = mlx.primitive "Concatenate"(%t, %e) [1 : i64] : (tensor<2x4x7xf32>, tensor<2x4x7xf32>) -> tensor<2x8x7xf32>
  %p = mlx.primitive "Pad"(%c, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 0, 1>, array<i64: 0, 0, 2>] : (tensor<2x8x7xf32>, tensor<f32>) -> tensor<2x8x10xf32>
  %m = mlx.primitive "Reduce"(%p) [2 : i64, array<i64: 2>] : (tensor<2x8x10xf32>) -> tensor<2x8x1xf32>
  %s = mlx.primitive "Squeeze"(%m) [array<i64: 2>] : (tensor<2x8x1xf32>) -> tensor<2x8xf32>
  return %s : tensor<2x8xf32>
}
// CHECK-NOT: Transpose
// CHECK: %c = mlx.primitive "Concatenate"(%y, %e) [2 : i64]
// CHECK-NEXT: %p = mlx.primitive "Pad"(%c, %zero) [array<i64: 0, 2, 1>, array<i64: 0, 0, 1>, array<i64: 0, 0, 2>] : (tensor<2x7x8xf32>, tensor<f32>) -> tensor<2x10x8xf32>
// CHECK-NEXT: %m = mlx.primitive "Reduce"(%p) [2 : i64, array<i64: 1>]
// CHECK-NEXT: %s = mlx.primitive "Reshape"(%m) [array<i64: 2, 8>]
// CHECK-NEXT: return %s

// -----

// Axes may be split and joined: pooling of NCHW by a reshape, and what attention does to pixels.
func.func @forward(%x: tensor<2x4x6x3xf32>, %w: tensor<5x1x1x3xf32>) -> tensor<2x6x5xf32> {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x4x6x3xf32>, tensor<5x1x1x3xf32>) -> tensor<2x4x6x5xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 3, 1, 2>] : (tensor<2x4x6x5xf32>) -> tensor<2x5x4x6xf32>
  %r = mlx.primitive "Reshape"(%t) [array<i64: 2, 5, 2, 2, 3, 2>] : (tensor<2x5x4x6xf32>) -> tensor<2x5x2x2x3x2xf32>
  %m = mlx.primitive "Reduce"(%r) [5 : i64, array<i64: 3, 5>] : (tensor<2x5x2x2x3x2xf32>) -> tensor<2x5x2x1x3x1xf32>
  %f = mlx.primitive "Reshape"(%m) [array<i64: 2, 5, -1>] : (tensor<2x5x2x1x3x1xf32>) -> tensor<2x5x6xf32>
  %u = mlx.primitive "Transpose"(%f) [array<i64: 0, 2, 1>] : (tensor<2x5x6xf32>) -> tensor<2x6x5xf32>
  return %u : tensor<2x6x5xf32>
}
// CHECK: %r = mlx.primitive "Reshape"(%y) [array<i64: 2, 2, 2, 3, 2, 5>]
// CHECK-NEXT: %m = mlx.primitive "Reduce"(%r) [5 : i64, array<i64: 2, 4>]
// CHECK-NEXT: %f = mlx.primitive "Reshape"(%m) [array<i64: 2, 6, 5>]
// CHECK-NEXT: return %f

// -----

// Channels that are joined with the pixels behind them are no neighbours of these here.
func.func @forward(%x: tensor<2x4x6x3xf32>, %w: tensor<8x1x1x3xf32>) -> tensor<2x2x96xf32> {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x4x6x3xf32>, tensor<8x1x1x3xf32>) -> tensor<2x4x6x8xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 3, 1, 2>] : (tensor<2x4x6x8xf32>) -> tensor<2x8x4x6xf32>
  %r = mlx.primitive "Reshape"(%t) [array<i64: 2, 2, -1>] : (tensor<2x8x4x6xf32>) -> tensor<2x2x96xf32>
  return %r : tensor<2x2x96xf32>
}
// CHECK: %t = mlx.primitive "Transpose"(%y)
// CHECK-NEXT: %r = mlx.primitive "Reshape"(%t)

// -----

// Nothing of a convolution: stays. An op that fuses with nothing (behind a sum) gets no transpose of another array.
func.func @forward(%x: tensor<5x4xf32>, %i: tensor<1x7x3xf32>, %w: tensor<4x1x3xf32>, %o: tensor<1x4x1xf32>, %big: tensor<9x4x6xf32>) -> (tensor<4x5xf32>, tensor<9x4x6xf32>) {
  %q = mlx.primitive "Transpose"(%x) [array<i64: 1, 0>] : (tensor<5x4xf32>) -> tensor<4x5xf32>
  %e = mlx.primitive "Exp"(%q) [] : (tensor<4x5xf32>) -> tensor<4x5xf32>
  %y = conv.general %i, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x7x3xf32>, tensor<4x1x3xf32>) -> tensor<1x7x4xf32>
  %m = mlx.primitive "Reduce"(%y) [2 : i64, array<i64: 1>] : (tensor<1x7x4xf32>) -> tensor<1x1x4xf32>
  %n = mlx.primitive "Broadcast"(%m) [array<i64: 9, 6, 4>] : (tensor<1x1x4xf32>) -> tensor<9x6x4xf32>
  %t = mlx.primitive "Transpose"(%n) [array<i64: 0, 2, 1>] : (tensor<9x6x4xf32>) -> tensor<9x4x6xf32>
  %a = mlx.primitive "Add"(%t, %big) [] : (tensor<9x4x6xf32>, tensor<9x4x6xf32>) -> tensor<9x4x6xf32>
  return %e, %a : tensor<4x5xf32>, tensor<9x4x6xf32>
}
// CHECK: %q = mlx.primitive "Transpose"(%x)
// CHECK-NEXT: %e = mlx.primitive "Exp"(%q)
// CHECK: %t = mlx.primitive "Transpose"(%n)
// CHECK-NEXT: %a = mlx.primitive "Add"(%t, %big)

// -----

// Transposes in a row are one, equal ones are shared, whatever is transposed.
func.func @forward(%x: tensor<2x3x4xf32>) -> (tensor<4x3x2xf32>, tensor<2x3x4xf32>, tensor<4x3x2xf32>) {
  %a = mlx.primitive "Transpose"(%x) [array<i64: 1, 2, 0>] : (tensor<2x3x4xf32>) -> tensor<3x4x2xf32>
  %b = mlx.primitive "Transpose"(%a) [array<i64: 1, 0, 2>] : (tensor<3x4x2xf32>) -> tensor<4x3x2xf32>
  %c = mlx.primitive "Transpose"(%b) [array<i64: 2, 1, 0>] : (tensor<4x3x2xf32>) -> tensor<2x3x4xf32>
  %d = mlx.primitive "Transpose"(%x) [array<i64: 2, 1, 0>] : (tensor<2x3x4xf32>) -> tensor<4x3x2xf32>
  return %b, %c, %d : tensor<4x3x2xf32>, tensor<2x3x4xf32>, tensor<4x3x2xf32>
}
// CHECK: %[[T:.*]] = mlx.primitive "Transpose"(%x) [array<i64: 2, 1, 0>]
// CHECK-NEXT: return %[[T]], %x, %[[T]]
