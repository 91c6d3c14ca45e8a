// RUN: convjit-opt -p raise-rearrange --split-input-file %s | filecheck %s

// A concatenation of a slice, which a kernel reads by other axes.
func.func @forward(%x: tensor<1x4x4x8xf32>, %w: tensor<32x1x1x8xf32>, %b: tensor<1x4x4x8xf32>) -> tensor<16x24xf32> {
  %a = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%s: f32):
    conv.yield %s : f32
  } : (tensor<1x4x4x8xf32>, tensor<32x1x1x8xf32>) -> tensor<1x4x4x32xf32>
  %h, %g = mlx.primitive "Split"(%a) [array<i64: 16>, -1] : (tensor<1x4x4x32xf32>) -> (tensor<1x4x4x16xf32>, tensor<1x4x4x16xf32>)
  %c = mlx.primitive "Concatenate"(%g, %b) [-1] : (tensor<1x4x4x16xf32>, tensor<1x4x4x8xf32>) -> tensor<1x4x4x24xf32>
  %t = mlx.primitive "Reshape"(%c) [array<i64: 16, 24>] : (tensor<1x4x4x24xf32>) -> tensor<16x24xf32>
  %y = conv.softmax %t : tensor<16x24xf32> -> tensor<16x24xf32>
  return %y : tensor<16x24xf32>
}
// CHECK-NOT: mlx.primitive
// CHECK: %c = conv.rearrange(%a, %b) parts <[16, 16] from 16 [32, 1] to 0 [24, 1], [16, 8] from 0 [8, 1] to 16 [24, 1]> layer "rearrange"
// CHECK-NEXT: %t = conv.view %c : tensor<1x4x4x24xf32> -> tensor<16x24xf32>
// CHECK-NEXT: %y = conv.softmax %t

// -----

// Nearest neighbours: repeated, by other axes. The user reads a transpose: that costs nothing.
func.func @forward(%x: tensor<1x2x3x8xf32>) -> tensor<1x8x4x6xf32> {
  %e = mlx.primitive "ExpandDims"(%x) [array<i64: 2, 4>] : (tensor<1x2x3x8xf32>) -> tensor<1x2x1x3x1x8xf32>
  %b = mlx.primitive "Broadcast"(%e) [array<i64: 1, 2, 2, 3, 2, 8>] : (tensor<1x2x1x3x1x8xf32>) -> tensor<1x2x2x3x2x8xf32>
  %r = mlx.primitive "Reshape"(%b) [array<i64: 1, 4, 6, 8>] : (tensor<1x2x2x3x2x8xf32>) -> tensor<1x4x6x8xf32>
  %y = conv.softmax %r : tensor<1x4x6x8xf32> -> tensor<1x4x6x8xf32>
  %t = mlx.primitive "Transpose"(%y) [array<i64: 0, 3, 1, 2>] : (tensor<1x4x6x8xf32>) -> tensor<1x8x4x6xf32>
  return %t : tensor<1x8x4x6xf32>
}
// CHECK: %r = conv.rearrange(%x) parts <[2, 2, 3, 2, 8] from 0 [24, 0, 8, 0, 1] to 0 [96, 48, 16, 8, 1]> layer "rearrange"
// CHECK-NEXT: %y = conv.softmax %r
// CHECK-NEXT: %t = mlx.primitive "Transpose"(%y)

// -----

// What MLX's ops and the user read, and what kernels write: a concatenation joins them.
func.func @forward(%x: tensor<2x8xf32>, %z: tensor<2x4xf32>) -> (tensor<2x12xf32>, tensor<2x12xf32>) {
  %y = conv.softmax %x : tensor<2x8xf32> -> tensor<2x8xf32>
  %c = mlx.primitive "Concatenate"(%y, %z) [1] : (tensor<2x8xf32>, tensor<2x4xf32>) -> tensor<2x12xf32>
  %n = mlx.primitive "Sort"(%c) [1] : (tensor<2x12xf32>) -> tensor<2x12xf32>
  return %c, %n : tensor<2x12xf32>, tensor<2x12xf32>
}
// CHECK: %c = conv.rearrange(%y, %z)
// CHECK-NEXT: %n = mlx.primitive "Sort"(%c)

// -----

// A reflection: the slices before and behind run backwards.
func.func @forward(%x: tensor<1x9x8xf32>) -> tensor<1x14x8xf32> {
  %p = mlx.primitive "Slice"(%x) [array<i64: 0, 1, 0>, array<i64: 1, 4, 8>, array<i64: 1, 1, 1>] : (tensor<1x9x8xf32>) -> tensor<1x3x8xf32>
  %q = mlx.primitive "Slice"(%p) [array<i64: 0, 2, 0>, array<i64: 1, -4, 8>, array<i64: 1, -1, 1>] : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
  %s = mlx.primitive "Slice"(%x) [array<i64: 0, 7, 0>, array<i64: 1, 5, 8>, array<i64: 1, -1, 1>] : (tensor<1x9x8xf32>) -> tensor<1x2x8xf32>
  %c = mlx.primitive "Concatenate"(%q, %x, %s) [1] : (tensor<1x3x8xf32>, tensor<1x9x8xf32>, tensor<1x2x8xf32>) -> tensor<1x14x8xf32>
  %y = conv.softmax %c : tensor<1x14x8xf32> -> tensor<1x14x8xf32>
  return %y : tensor<1x14x8xf32>
}
// CHECK-NOT: mlx.primitive
// CHECK: %c = conv.rearrange(%x, %x, %x) parts <[3, 8] from 24 [-8, 1] to 0 [8, 1], [72] from 0 [1] to 24 [1], [2, 8] from 56 [-8, 1] to 96 [8, 1]> layer "rearrange"
// CHECK-NEXT: %y = conv.softmax %c

// -----

// What stays: other dtypes, what depends on parameters alone, and functions without a kernel.
func.func @forward(%x: tensor<4x8xf32>, %w: tensor<4x8xf32> {mlx.kind = "parameter"}) -> (tensor<4x8xf32>, tensor<8x4xf32>) {
  %s = mlx.primitive "Sort"(%x) [0] : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %t = mlx.primitive "Transpose"(%w) [array<i64: 1, 0>] : (tensor<4x8xf32>) -> tensor<8x4xf32>
  %y = conv.softmax %s : tensor<4x8xf32> -> tensor<4x8xf32>
  %z = conv.softmax %t : tensor<8x4xf32> -> tensor<8x4xf32>
  return %y, %z : tensor<4x8xf32>, tensor<8x4xf32>
}
// CHECK-NOT: conv.rearrange

// -----

func.func @forward(%x: tensor<4x8xf32>, %z: tensor<4x8xf32>) -> tensor<4x16xf32> {
  %c = mlx.primitive "Concatenate"(%x, %z) [1] : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x16xf32>
  return %c : tensor<4x16xf32>
}
// CHECK-NOT: conv.rearrange
