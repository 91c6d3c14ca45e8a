// RUN: convjit-opt -p fold-pad --split-input-file %s | filecheck %s

// Asymmetric padding joins what the window has already.
func.func @forward(%x: tensor<1x7x7x3xf32>, %w: tensor<4x3x3x3xf32>) -> tensor<1x8x10x4xf32> {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2, 3>, array<i64: 0, 1, 0, 0>, array<i64: 0, 0, 3, 0>] : (tensor<1x7x7x3xf32>, tensor<f32>) -> tensor<1x8x10x3xf32>
  %y = conv.general %p, %w window <strides = [1, 1], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv" : (tensor<1x8x10x3xf32>, tensor<4x3x3x3xf32>) -> tensor<1x8x10x4xf32>
  return %y : tensor<1x8x10x4xf32>
}
// CHECK-NOT: Pad
// CHECK: %y = conv.general %x, %w window <strides = [1, 1], pad = [2, 1] : [1, 4], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv" :

// -----

// Another reader keeps the padded input alive; the convolution does without.
func.func @forward(%x: tensor<1x6x3xf32>, %w: tensor<4x3x3xf32>) -> (tensor<1x6x4xf32>, tensor<1x8x3xf32>) {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 1, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x8x3xf32>
  %y = conv.general %p, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x8x3xf32>, tensor<4x3x3xf32>) -> tensor<1x6x4xf32>
  return %y, %p : tensor<1x6x4xf32>, tensor<1x8x3xf32>
}
// CHECK: %p = mlx.primitive "Pad"
// CHECK-NEXT: %y = conv.general %x, %w window <strides = [1], pad = [1] : [1],

// -----

// Not zero, not constant, not spatial: nothing folds.
func.func @forward(%x: tensor<1x6x3xf32>, %w: tensor<4x3x3xf32>, %v: tensor<f32>, %w5: tensor<4x3x5xf32>) -> (tensor<1x6x4xf32>, tensor<1x6x4xf32>, tensor<1x4x4xf32>) {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %one = mlx.constant 1.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %one) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 1, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x8x3xf32>
  %q = mlx.primitive "Pad"(%x, %v) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 1, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x8x3xf32>
  %r = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 0, 1>, array<i64: 0, 0, 1>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x6x5xf32>
  %a = conv.general %p, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x8x3xf32>, tensor<4x3x3xf32>) -> tensor<1x6x4xf32>
  %b = conv.general %q, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x8x3xf32>, tensor<4x3x3xf32>) -> tensor<1x6x4xf32>
  %c = conv.general %r, %w5 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x6x5xf32>, tensor<4x3x5xf32>) -> tensor<1x4x4xf32>
  return %a, %b, %c : tensor<1x6x4xf32>, tensor<1x6x4xf32>, tensor<1x4x4xf32>
}
// CHECK: conv.general %p, %w window <strides = [1], pad = [0] : [0],
// CHECK: conv.general %q, %w window <strides = [1], pad = [0] : [0],
// CHECK: conv.general %r, %w5 window <strides = [1], pad = [0] : [0],

// -----

// In a transposed convolution, each padded element brings its gap of zeros along.
func.func @forward(%x: tensor<1x4x3xf32>, %w: tensor<4x3x3xf32>) -> tensor<1x15x4xf32> {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 2, 0>] : (tensor<1x4x3xf32>, tensor<f32>) -> tensor<1x7x3xf32>
  %y = conv.general %p, %w window <strides = [1], pad = [2] : [2], dilation = [1], input_dilation = [2], groups = 1, flip> : (tensor<1x7x3xf32>, tensor<4x3x3xf32>) -> tensor<1x15x4xf32>
  return %y : tensor<1x15x4xf32>
}
// CHECK: conv.general %x, %w window <strides = [1], pad = [4] : [6], dilation = [1], input_dilation = [2], groups = 1, flip> :

// -----

// Neither does a negative amount, which crops, fold, nor padding of the batch.
func.func @forward(%x: tensor<1x6x3xf32>, %w: tensor<4x3x3xf32>) -> (tensor<1x4x4xf32>, tensor<2x4x4xf32>) {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, -1, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x6x3xf32>
  %q = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 1, 0, 0>, array<i64: 0, 0, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<2x6x3xf32>
  %a = conv.general %p, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x6x3xf32>, tensor<4x3x3xf32>) -> tensor<1x4x4xf32>
  %b = conv.general %q, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x3xf32>, tensor<4x3x3xf32>) -> tensor<2x4x4xf32>
  return %a, %b : tensor<1x4x4xf32>, tensor<2x4x4xf32>
}
// CHECK: conv.general %p, %w window <strides = [1], pad = [0] : [0],
// CHECK: conv.general %q, %w window <strides = [1], pad = [0] : [0],
