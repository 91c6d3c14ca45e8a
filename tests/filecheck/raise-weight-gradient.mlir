// RUN: convjit-opt -p raise-weight-gradient --split-input-file %s | filecheck %s

// Of a dense convolution: dy times the patches of the padded input.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: func.func @forward
// CHECK-NEXT: conv.weight_gradient %x, %dy window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv.weight.grad" : (tensor<2x9x8x3xf32>, tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32>
// CHECK-NEXT: func.return

// -----

// The name is that of the layer whose input and weight have these shapes; the padded input may be needed elsewhere, too.
func.func @forward(%x: tensor<2x9x8x3xf32>, %w: tensor<5x3x3x3xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "stem.weight"}, %dy: tensor<2x5x4x5xf32>) -> (tensor<5x3x3x3xf32>, tensor<2x5x4x5xf32>, tensor<2x11x10x3xf32>) {
  %y = mlx.primitive "Convolution"(%x, %w) [array<i64: 2, 2>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, 1 : i64, false] : (tensor<2x9x8x3xf32>, tensor<5x3x3x3xf32>) -> tensor<2x5x4x5xf32>
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8, %y, %3 : tensor<5x3x3x3xf32>, tensor<2x5x4x5xf32>, tensor<2x11x10x3xf32>
}
// CHECK: "Convolution"(%x, %w)
// CHECK: "Pad"(%x
// CHECK-NEXT: conv.weight_gradient %x, %dy {{.*}} layer "stem.weight.grad" :

// -----

// A result that is a gradient says which weight it is by, though the layer is not here.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> (tensor<2x5x4x5xf32> {mlx.gradient_by = "x"}, tensor<5x3x3x3xf32> {mlx.gradient_by = "layers.0.weight"}) {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  %9 = mlx.primitive "Negative"(%8) [] : (tensor<5x3x3x3xf32>) -> tensor<5x3x3x3xf32>
  return %dy, %9 : tensor<2x5x4x5xf32>, tensor<5x3x3x3xf32>
}
// CHECK: conv.weight_gradient %x, %dy {{.*}} layer "layers.0.weight.grad" :

// -----

// Of a strided and grouped convolution: one of the input with dy, images and channels exchanged. MLX's padding at the
// end is one that gives this extent.
func.func @forward(%x: tensor<2x9x8x4xf32>, %dy: tensor<2x5x4x6xf32>) -> tensor<6x3x3x2xf32> {
  %0 = mlx.primitive "Reshape"(%x) [array<i64: 2, 9, 8, 2, 2>] : (tensor<2x9x8x4xf32>) -> tensor<2x9x8x2x2xf32>
  %1 = mlx.primitive "Transpose"(%0) [array<i64: 4, 1, 2, 3, 0>] : (tensor<2x9x8x2x2xf32>) -> tensor<2x9x8x2x2xf32>
  %2 = mlx.primitive "Flatten"(%1) [3 : i64, 4 : i64] : (tensor<2x9x8x2x2xf32>) -> tensor<2x9x8x4xf32>
  %3 = mlx.primitive "Transpose"(%dy) [array<i64: 3, 1, 2, 0>] : (tensor<2x5x4x6xf32>) -> tensor<6x5x4x2xf32>
  %4 = mlx.primitive "Convolution"(%2, %3) [array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 0>, array<i64: 2, 2>, array<i64: 1, 1>, 2 : i64, false] : (tensor<2x9x8x4xf32>, tensor<6x5x4x2xf32>) -> tensor<2x3x3x6xf32>
  %5 = mlx.primitive "Transpose"(%4) [array<i64: 3, 1, 2, 0>] : (tensor<2x3x3x6xf32>) -> tensor<6x3x3x2xf32>
  return %5 : tensor<6x3x3x2xf32>
}
// CHECK: func.func @forward
// CHECK-NEXT: conv.weight_gradient %x, %dy window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 2> layer "conv.weight.grad" : (tensor<2x9x8x4xf32>, tensor<2x5x4x6xf32>) -> tensor<6x3x3x2xf32>
// CHECK-NEXT: func.return

// -----

// Of a transposed convolution: the gradient of the convolution from its output to its input.
func.func @forward(%x: tensor<2x5x6x4xf32>, %dy: tensor<2x9x11x6xf32>) -> tensor<6x3x3x2xf32> {
  %0 = mlx.primitive "Reshape"(%x) [array<i64: 2, 5, 6, 2, 2>] : (tensor<2x5x6x4xf32>) -> tensor<2x5x6x2x2xf32>
  %1 = mlx.primitive "Transpose"(%0) [array<i64: 4, 1, 2, 3, 0>] : (tensor<2x5x6x2x2xf32>) -> tensor<2x5x6x2x2xf32>
  %2 = mlx.primitive "Flatten"(%1) [3 : i64, 4 : i64] : (tensor<2x5x6x2x2xf32>) -> tensor<2x5x6x4xf32>
  %3 = mlx.primitive "Transpose"(%dy) [array<i64: 3, 1, 2, 0>] : (tensor<2x9x11x6xf32>) -> tensor<6x9x11x2xf32>
  %4 = mlx.primitive "Convolution"(%2, %3) [array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 2, 2>, 2 : i64, false] : (tensor<2x5x6x4xf32>, tensor<6x9x11x2xf32>) -> tensor<2x3x3x6xf32>
  %5 = mlx.primitive "Slice"(%4) [array<i64: 0, 2, 2, 0>, array<i64: 2, -4, -4, 6>, array<i64: 1, -1, -1, 1>] : (tensor<2x3x3x6xf32>) -> tensor<2x3x3x6xf32>
  %6 = mlx.primitive "Transpose"(%5) [array<i64: 3, 1, 2, 0>] : (tensor<2x3x3x6xf32>) -> tensor<6x3x3x2xf32>
  return %6 : tensor<6x3x3x2xf32>
}
// CHECK: %[[G:.*]] = conv.weight_gradient %dy, %x window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 2> layer "conv.weight.grad" : (tensor<2x9x11x6xf32>, tensor<2x5x6x4xf32>) -> tensor<4x3x3x3xf32>
// CHECK-NEXT: "Reshape"(%[[G]]) [array<i64: 2, 2, 3, 3, 3>]
// CHECK-NEXT: "Transpose"{{.*}} [array<i64: 0, 4, 2, 3, 1>]
// CHECK-NEXT: "Reshape"{{.*}} -> tensor<6x3x3x2xf32>

// -----

// Patches that do not begin at the first element.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 1 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: func.func @forward
// CHECK-NOT: conv.weight_gradient
// CHECK: return

// -----

// Patches of every fourth row and a half.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 45, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: func.func @forward
// CHECK-NOT: conv.weight_gradient
// CHECK: return

// -----

// Taps that are apart.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 6, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: func.func @forward
// CHECK-NOT: conv.weight_gradient
// CHECK: return

// -----

// Padding that is not zero: the patches are those of the padded input.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 1.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: %[[P:.*]] = mlx.primitive "Pad"
// CHECK-NEXT: conv.weight_gradient %[[P]], %dy window <strides = [2, 2], pad = [0, 0] : [0, 0],
// CHECK-NEXT: func.return

// -----

// One axis is not mirrored.
func.func @forward(%x: tensor<2x5x6x4xf32>, %dy: tensor<2x9x11x6xf32>) -> tensor<6x3x3x2xf32> {
  %0 = mlx.primitive "Reshape"(%x) [array<i64: 2, 5, 6, 2, 2>] : (tensor<2x5x6x4xf32>) -> tensor<2x5x6x2x2xf32>
  %1 = mlx.primitive "Transpose"(%0) [array<i64: 4, 1, 2, 3, 0>] : (tensor<2x5x6x2x2xf32>) -> tensor<2x5x6x2x2xf32>
  %2 = mlx.primitive "Flatten"(%1) [3 : i64, 4 : i64] : (tensor<2x5x6x2x2xf32>) -> tensor<2x5x6x4xf32>
  %3 = mlx.primitive "Transpose"(%dy) [array<i64: 3, 1, 2, 0>] : (tensor<2x9x11x6xf32>) -> tensor<6x9x11x2xf32>
  %4 = mlx.primitive "Convolution"(%2, %3) [array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 2, 2>, 2 : i64, false] : (tensor<2x5x6x4xf32>, tensor<6x9x11x2xf32>) -> tensor<2x3x3x6xf32>
  %5 = mlx.primitive "Slice"(%4) [array<i64: 0, 2, 0, 0>, array<i64: 2, -4, 3, 6>, array<i64: 1, -1, 1, 1>] : (tensor<2x3x3x6xf32>) -> tensor<2x3x3x6xf32>
  %6 = mlx.primitive "Transpose"(%5) [array<i64: 3, 1, 2, 0>] : (tensor<2x3x3x6xf32>) -> tensor<6x3x3x2xf32>
  return %6 : tensor<6x3x3x2xf32>
}
// CHECK: func.func @forward
// CHECK-NOT: conv.weight_gradient
// CHECK: return

// -----

// What a backend refused stays what MLX traced, and keeps the reason.
func.func @forward(%x: tensor<2x9x8x3xf32>, %dy: tensor<2x5x4x5xf32>) -> tensor<5x3x3x3xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %1 = mlx.primitive "Reshape"(%dy) [array<i64: -1, 5>] : (tensor<2x5x4x5xf32>) -> tensor<40x5xf32>
  %2 = mlx.primitive "Transpose"(%1) [array<i64: 1, 0>] : (tensor<40x5xf32>) -> tensor<5x40xf32>
  %3 = mlx.primitive "Pad"(%x, %0) [array<i64: 1, 2>, array<i64: 1, 1>, array<i64: 1, 1>] : (tensor<2x9x8x3xf32>, tensor<f32>) -> tensor<2x11x10x3xf32>
  %4 = mlx.primitive "Flatten"(%3) [0 : i64, 3 : i64] : (tensor<2x11x10x3xf32>) -> tensor<660xf32>
  %5 = mlx.primitive "AsStrided"(%4) [array<i64: 2, 5, 4, 3, 3, 3>, array<i64: 330, 60, 6, 30, 3, 1>, 0 : i64] : (tensor<660xf32>) -> tensor<2x5x4x3x3x3xf32>
  %6 = mlx.primitive "Reshape"(%5) [array<i64: 40, -1>] : (tensor<2x5x4x3x3x3xf32>) -> tensor<40x27xf32>
  %7 = mlx.primitive "Matmul"(%2, %6) [] : (tensor<5x40xf32>, tensor<40x27xf32>) -> tensor<5x27xf32>
  %8 = mlx.primitive "Reshape"(%7) [array<i64: 5, 3, 3, 3>] {refused = "too small"} : (tensor<5x27xf32>) -> tensor<5x3x3x3xf32>
  return %8 : tensor<5x3x3x3xf32>
}
// CHECK: func.func @forward
// CHECK-NOT: conv.weight_gradient
// CHECK: "Reshape"(%{{.*}}) [array<i64: 5, 3, 3, 3>] {refused = "too small", layer = "conv.weight.grad", convolution = "2x9x8x3 -> 5x4x5, k 3x3, s 2, p 1"}
