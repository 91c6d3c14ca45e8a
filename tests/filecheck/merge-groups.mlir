// RUN: convjit-opt -p merge-groups --split-input-file %s | filecheck %s

// Split, convolve, concatenate: MLX has no grouped 3D convolution, this is how one is written.
func.func @forward(%x: tensor<1x4x4x4x6xf32>, %w: tensor<4x2x2x2x3xf32>) -> tensor<1x3x3x3x4xf32> {
  %x0, %x1 = mlx.primitive "Split"(%x) [array<i64: 3>, 4 : i64] : (tensor<1x4x4x4x6xf32>) -> (tensor<1x4x4x4x3xf32>, tensor<1x4x4x4x3xf32>)
  %w0, %w1 = mlx.primitive "Split"(%w) [array<i64: 2>, 0 : i64] : (tensor<4x2x2x2x3xf32>) -> (tensor<2x2x2x2x3xf32>, tensor<2x2x2x2x3xf32>)
  %y0 = conv.general %x0, %w0 window <strides = [1, 1, 1], pad = [0, 0, 0] : [0, 0, 0], dilation = [1, 1, 1], input_dilation = [1, 1, 1], groups = 1> layer "w" : (tensor<1x4x4x4x3xf32>, tensor<2x2x2x2x3xf32>) -> tensor<1x3x3x3x2xf32>
  %y1 = conv.general %x1, %w1 window <strides = [1, 1, 1], pad = [0, 0, 0] : [0, 0, 0], dilation = [1, 1, 1], input_dilation = [1, 1, 1], groups = 1> layer "w#2" : (tensor<1x4x4x4x3xf32>, tensor<2x2x2x2x3xf32>) -> tensor<1x3x3x3x2xf32>
  %y = mlx.primitive "Concatenate"(%y0, %y1) [4 : i64] : (tensor<1x3x3x3x2xf32>, tensor<1x3x3x3x2xf32>) -> tensor<1x3x3x3x4xf32>
  return %y : tensor<1x3x3x3x4xf32>
}
// CHECK-NOT: Split
// CHECK: %y = conv.general %x, %w window <strides = [1, 1, 1], pad = [0, 0, 0] : [0, 0, 0], dilation = [1, 1, 1], input_dilation = [1, 1, 1], groups = 2> layer "w" :
// CHECK-NEXT: return %y

// -----

// Slices, weights of their own, which are put together, and groups of groups.
func.func @forward(%x: tensor<1x5x4xf32>, %v: tensor<4x1x1xf32>, %w: tensor<4x1x1xf32>) -> tensor<1x5x8xf32> {
  %x0 = mlx.primitive "Slice"(%x) [array<i64: 0, 0, 0>, array<i64: 1, 5, 2>, array<i64: 1, 1, 1>] : (tensor<1x5x4xf32>) -> tensor<1x5x2xf32>
  %x1 = mlx.primitive "Slice"(%x) [array<i64: 0, 0, 2>, array<i64: 1, 5, 4>, array<i64: 1, 1, 1>] : (tensor<1x5x4xf32>) -> tensor<1x5x2xf32>
  %y0 = conv.general %x0, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 2> : (tensor<1x5x2xf32>, tensor<4x1x1xf32>) -> tensor<1x5x4xf32>
  %y1 = conv.general %x1, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 2> : (tensor<1x5x2xf32>, tensor<4x1x1xf32>) -> tensor<1x5x4xf32>
  %y = mlx.primitive "Concatenate"(%y0, %y1) [2 : i64] : (tensor<1x5x4xf32>, tensor<1x5x4xf32>) -> tensor<1x5x8xf32>
  return %y : tensor<1x5x8xf32>
}
// CHECK: %[[W:.*]] = mlx.primitive "Concatenate"(%v, %w) [0 : i64] : (tensor<4x1x1xf32>, tensor<4x1x1xf32>) -> tensor<8x1x1xf32>
// CHECK-NEXT: %y = conv.general %x, %[[W]] window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 4> :

// -----

// The parts of the input in another order: not this convolution.
func.func @forward(%x: tensor<1x5x4xf32>, %v: tensor<3x1x2xf32>, %w: tensor<3x1x2xf32>) -> tensor<1x5x6xf32> {
  %x0, %x1 = mlx.primitive "Split"(%x) [array<i64: 2>, 2 : i64] : (tensor<1x5x4xf32>) -> (tensor<1x5x2xf32>, tensor<1x5x2xf32>)
  %y0 = conv.general %x1, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %y1 = conv.general %x0, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %y = mlx.primitive "Concatenate"(%y0, %y1) [2 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x5x6xf32>
  return %y : tensor<1x5x6xf32>
}
// CHECK: %y0 = conv.general %x1, %v
// CHECK-NEXT: %y1 = conv.general %x0, %w
// CHECK-NEXT: %y = mlx.primitive "Concatenate"(%y0, %y1) [2 : i64]

// -----

// The parts of the weight in another order are put together in that order.
func.func @forward(%x: tensor<1x5x4xf32>, %w: tensor<6x1x2xf32>) -> tensor<1x5x6xf32> {
  %x0, %x1 = mlx.primitive "Split"(%x) [array<i64: 2>, 2 : i64] : (tensor<1x5x4xf32>) -> (tensor<1x5x2xf32>, tensor<1x5x2xf32>)
  %w0, %w1 = mlx.primitive "Split"(%w) [array<i64: 3>, 0 : i64] : (tensor<6x1x2xf32>) -> (tensor<3x1x2xf32>, tensor<3x1x2xf32>)
  %y0 = conv.general %x0, %w1 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %y1 = conv.general %x1, %w0 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %y = mlx.primitive "Concatenate"(%y0, %y1) [2 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x5x6xf32>
  return %y : tensor<1x5x6xf32>
}
// CHECK: %[[W:.*]] = mlx.primitive "Concatenate"(%w1, %w0) [0 : i64]
// CHECK-NEXT: %y = conv.general %x, %[[W]] window {{.*}} groups = 2>

// -----

// A part of the result has another reader, the windows differ, the join is along another axis, a channel is left out.
func.func @forward(%x: tensor<1x5x4xf32>, %v: tensor<3x1x2xf32>, %w: tensor<3x1x2xf32>, %z: tensor<1x5x5xf32>) -> (tensor<1x5x6xf32>, tensor<1x5x3xf32>, tensor<1x10x3xf32>, tensor<1x5x6xf32>, tensor<1x5x6xf32>) {
  %x0, %x1 = mlx.primitive "Split"(%x) [array<i64: 2>, 2 : i64] : (tensor<1x5x4xf32>) -> (tensor<1x5x2xf32>, tensor<1x5x2xf32>)
  %a0 = conv.general %x0, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %a1 = conv.general %x1, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %a = mlx.primitive "Concatenate"(%a0, %a1) [2 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x5x6xf32>
  %b0 = conv.general %x0, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %b1 = conv.general %x1, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %b = mlx.primitive "Concatenate"(%b0, %b1) [1 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x10x3xf32>
  %c0 = conv.general %x0, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %c1 = conv.general %x1, %w window <strides = [1], pad = [0] : [0], dilation = [2], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %c = mlx.primitive "Concatenate"(%c0, %c1) [2 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x5x6xf32>
  %z0, %z1, %z2 = mlx.primitive "Split"(%z) [array<i64: 2, 4>, 2 : i64] : (tensor<1x5x5xf32>) -> (tensor<1x5x2xf32>, tensor<1x5x2xf32>, tensor<1x5x1xf32>)
  %d0 = conv.general %z0, %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %d1 = conv.general %z1, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x5x2xf32>, tensor<3x1x2xf32>) -> tensor<1x5x3xf32>
  %d = mlx.primitive "Concatenate"(%d0, %d1) [2 : i64] : (tensor<1x5x3xf32>, tensor<1x5x3xf32>) -> tensor<1x5x6xf32>
  return %a, %a0, %b, %c, %d : tensor<1x5x6xf32>, tensor<1x5x3xf32>, tensor<1x10x3xf32>, tensor<1x5x6xf32>, tensor<1x5x6xf32>
}
// CHECK: %a = mlx.primitive "Concatenate"(%a0, %a1)
// CHECK: %b = mlx.primitive "Concatenate"(%b0, %b1)
// CHECK: %c = mlx.primitive "Concatenate"(%c0, %c1)
// CHECK: %d = mlx.primitive "Concatenate"(%d0, %d1)
// CHECK-NOT: groups = 2
