// RUN: convjit-opt -p 'fuse-elementwise{without=4}' %s | filecheck %s
// RUN: convjit-opt -p 'fuse-elementwise{without=3,8}' %s | filecheck %s --check-prefix NONE

// The cluster of op 4 stays as it was, its predicates too; the other kernel keeps its name.
func.func @forward(%x: tensor<2x4x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x4x4xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %zeros = mlx.primitive "Broadcast"(%0) [array<i64: 2, 4, 4>] : (tensor<f32>) -> tensor<2x4x4xf32>
  %greater = mlx.primitive "Greater"(%x, %zeros) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xi1>
  %tanh = mlx.primitive "Tanh"(%x) [] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %chosen = mlx.primitive "Select"(%greater, %x, %tanh) [] : (tensor<2x4x4xi1>, tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %y = conv.fused %chosen, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, tensor<4x1x4xf32>) -> tensor<2x4x4xf32>
  %total = mlx.primitive "Sort"(%y) [1 : i64] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %square = mlx.primitive "Square"(%total) [] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %z = mlx.primitive "Add"(%square, %y) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  return %z : tensor<2x4x4xf32>
}
// CHECK:      %greater = mlx.primitive "Greater"(%x, %zeros)
// CHECK-NEXT: %tanh = mlx.primitive "Tanh"(%x)
// CHECK-NEXT: %chosen = mlx.primitive "Select"(%greater, %x, %tanh)
// CHECK-NEXT: %y = conv.fused %chosen, %w
// CHECK:      %z = conv.elementwise over <[2, 4, 4]> layer "elementwise.8"(%total, %y)

// NONE-NOT: conv.elementwise
