// RUN: convjit-opt -p raise-linear --split-input-file %s | filecheck %s

// A linear layer on all pixels of an image: the axes that are one around the product are apart again.
func.func @forward(
    %x: tensor<1x8x8x16xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<32x16xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "up.weight"},
    %bias: tensor<32xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "up.bias"}
) -> tensor<1x8x8x32xf32> {
  %f = mlx.primitive "Reshape"(%x) [array<i64: -1, 16>] : (tensor<1x8x8x16xf32>) -> tensor<64x16xf32>
  %t = mlx.primitive "Transpose"(%w) [array<i64: 1, 0>] : (tensor<32x16xf32>) -> tensor<16x32xf32>
  %b = mlx.primitive "Broadcast"(%bias) [array<i64: 64, 32>] : (tensor<32xf32>) -> tensor<64x32xf32>
  %m = mlx.primitive "AddMM"(%f, %t, %b) [1.0 : f64, 1.0 : f64] : (tensor<64x16xf32>, tensor<16x32xf32>, tensor<64x32xf32>) -> tensor<64x32xf32>
  %y = mlx.primitive "Reshape"(%m) [array<i64: 1, 8, 8, 32>] : (tensor<64x32xf32>) -> tensor<1x8x8x32xf32>
  return %y : tensor<1x8x8x32xf32>
}
// CHECK: func.func @forward
// CHECK-NEXT: %0 = conv.general %x, %w window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> layer "up" : (tensor<1x8x8x16xf32>, tensor<32x16xf32>) -> tensor<1x8x8x32xf32>
// CHECK-NEXT: %1 = mlx.primitive "Broadcast"(%bias) [array<i64: 1, 8, 8, 32>]
// CHECK-NEXT: %y = mlx.primitive "Add"(%0, %1)
// CHECK-NEXT: func.return %y

// -----

// Two axes, no bias; the product of two inputs is one with a matrix, too.
func.func @forward(%x: tensor<5x16xf16>, %w: tensor<16x3xf16>) -> tensor<5x3xf16> {
  %m = mlx.primitive "Matmul"(%x, %w) [] : (tensor<5x16xf16>, tensor<16x3xf16>) -> tensor<5x3xf16>
  return %m : tensor<5x3xf16>
}
// CHECK: %0 = mlx.primitive "Transpose"(%w) [array<i64: 1, 0>] : (tensor<16x3xf16>) -> tensor<3x16xf16>
// CHECK-NEXT: %m = conv.general %x, %0 {{.*}} layer "linear" : (tensor<5x16xf16>, tensor<3x16xf16>) -> tensor<5x3xf16>

// -----

// What is added varies by row, and one reader wants the rows: both stay on two axes.
func.func @forward(%x: tensor<2x4x16xf32>, %w: tensor<16x3xf32>, %c: tensor<8x3xf32>) -> (tensor<2x4x3xf32>, tensor<8x3xf32>) {
  %f = mlx.primitive "Flatten"(%x) [0 : i64, 1 : i64] : (tensor<2x4x16xf32>) -> tensor<8x16xf32>
  %m = mlx.primitive "AddMM"(%f, %w, %c) [1.0 : f64, 1.0 : f64] : (tensor<8x16xf32>, tensor<16x3xf32>, tensor<8x3xf32>) -> tensor<8x3xf32>
  %y = mlx.primitive "Unflatten"(%m) [0 : i64, array<i64: 2, 4>] : (tensor<8x3xf32>) -> tensor<2x4x3xf32>
  %n = mlx.primitive "Matmul"(%f, %w) [] : (tensor<8x16xf32>, tensor<16x3xf32>) -> tensor<8x3xf32>
  return %y, %n : tensor<2x4x3xf32>, tensor<8x3xf32>
}
// CHECK: conv.general %f, {{.*}} layer "linear" : (tensor<8x16xf32>, tensor<3x16xf32>) -> tensor<8x3xf32>
// CHECK: mlx.primitive "Unflatten"
// CHECK: conv.general %f, {{.*}} layer "linear#2" :

// -----

// The gradient of the matrix, where MLX transposes the product: the two change places instead.
func.func @forward(
    %x: tensor<2x4x16xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<3x16xf32> {mlx.index = 1 : i64, mlx.kind = "state", mlx.name = "head.weight"},
    %dy: tensor<2x4x3xf32> {mlx.index = 2 : i64, mlx.kind = "input", mlx.name = "dy"}
) -> (tensor<2x4x3xf32>, tensor<3x16xf32>) {
  %t = mlx.primitive "Transpose"(%w) [array<i64: 1, 0>] : (tensor<3x16xf32>) -> tensor<16x3xf32>
  %f = mlx.primitive "Reshape"(%x) [array<i64: -1, 16>] : (tensor<2x4x16xf32>) -> tensor<8x16xf32>
  %m = mlx.primitive "Matmul"(%f, %t) [] : (tensor<8x16xf32>, tensor<16x3xf32>) -> tensor<8x3xf32>
  %y = mlx.primitive "Reshape"(%m) [array<i64: 2, 4, 3>] : (tensor<8x3xf32>) -> tensor<2x4x3xf32>
  %ft = mlx.primitive "Transpose"(%f) [array<i64: 1, 0>] : (tensor<8x16xf32>) -> tensor<16x8xf32>
  %d = mlx.primitive "Reshape"(%dy) [array<i64: -1, 3>] : (tensor<2x4x3xf32>) -> tensor<8x3xf32>
  %g = mlx.primitive "Matmul"(%ft, %d) [] : (tensor<16x8xf32>, tensor<8x3xf32>) -> tensor<16x3xf32>
  %dw = mlx.primitive "Transpose"(%g) [array<i64: 1, 0>] : (tensor<16x3xf32>) -> tensor<3x16xf32>
  return %y, %dw : tensor<2x4x3xf32>, tensor<3x16xf32>
}
// CHECK: conv.general %x, %w {{.*}} layer "head" :
// CHECK-NEXT: %dw = conv.weight_gradient %x, %dy window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> layer "head.weight.grad" : (tensor<2x4x16xf32>, tensor<2x4x3xf32>) -> tensor<3x16xf32>
// CHECK-NEXT: func.return

// -----

// The gradient of a bias.
func.func @forward(%dy: tensor<2x4x3xf32>) -> tensor<1x3xf32> {
  %d = mlx.primitive "Reshape"(%dy) [array<i64: -1, 3>] : (tensor<2x4x3xf32>) -> tensor<8x3xf32>
  %s = mlx.primitive "Reduce"(%d) [2 : i64, array<i64: 0>] : (tensor<8x3xf32>) -> tensor<1x3xf32>
  return %s : tensor<1x3xf32>
}
// CHECK: %0 = mlx.primitive "Reduce"(%dy) [2 : i64, array<i64: 0, 1>] : (tensor<2x4x3xf32>) -> tensor<1x1x3xf32>
// CHECK-NEXT: %s = mlx.primitive "Reshape"(%0) [array<i64: 1, 3>]

// -----

// What stays: scaled products, more axes in both operands, other dtypes, nothing to sum, and what was refused.
func.func @forward(%x: tensor<5x16xf32>, %w: tensor<16x3xf32>, %c: tensor<5x3xf32>, %q: tensor<2x5x4xf32>, %k: tensor<2x4x5xf32>, %d: tensor<4x4xf64>, %e: tensor<0x16xf32>) -> (tensor<5x3xf32>, tensor<2x5x5xf32>, tensor<4x4xf64>, tensor<0x3xf32>, tensor<5x3xf32>) {
  %0 = mlx.primitive "AddMM"(%x, %w, %c) [2.0 : f64, 1.0 : f64] : (tensor<5x16xf32>, tensor<16x3xf32>, tensor<5x3xf32>) -> tensor<5x3xf32>
  %1 = mlx.primitive "Matmul"(%q, %k) [] : (tensor<2x5x4xf32>, tensor<2x4x5xf32>) -> tensor<2x5x5xf32>
  %2 = mlx.primitive "Matmul"(%d, %d) [] : (tensor<4x4xf64>, tensor<4x4xf64>) -> tensor<4x4xf64>
  %3 = mlx.primitive "Matmul"(%e, %w) [] : (tensor<0x16xf32>, tensor<16x3xf32>) -> tensor<0x3xf32>
  %4 = mlx.primitive "Matmul"(%x, %w) [] {refused = "it failed"} : (tensor<5x16xf32>, tensor<16x3xf32>) -> tensor<5x3xf32>
  return %0, %1, %2, %3, %4 : tensor<5x3xf32>, tensor<2x5x5xf32>, tensor<4x4xf64>, tensor<0x3xf32>, tensor<5x3xf32>
}
// CHECK-NOT: conv.
// CHECK: {refused = "it failed", layer = "linear", convolution = "5x16 -> 3, linear"}
// CHECK-NOT: conv.

// -----

// Several matrices, each of which belongs to one image.
func.func @forward(%q: tensor<2x8x99x64xf32>, %k: tensor<2x8x99x64xf32>) -> tensor<2x8x99x99xf32> {
  %t = mlx.primitive "Transpose"(%k) [array<i64: 0, 1, 3, 2>] : (tensor<2x8x99x64xf32>) -> tensor<2x8x64x99xf32>
  %s = mlx.primitive "Matmul"(%q, %t) [] : (tensor<2x8x99x64xf32>, tensor<2x8x64x99xf32>) -> tensor<2x8x99x99xf32>
  return %s : tensor<2x8x99x99xf32>
}
// CHECK: %0 = mlx.primitive "Reshape"(%q) [array<i64: 16, 99, 64>]
// CHECK-NEXT: %1 = mlx.primitive "Reshape"(%k) [array<i64: 16, 99, 64>]
// CHECK-NEXT: %2 = conv.general %0, %1 window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> layer "matmul" : (tensor<16x99x64xf32>, tensor<16x99x64xf32>) -> tensor<16x99x99xf32>
// CHECK-NEXT: %s = mlx.primitive "Reshape"(%2) [array<i64: 2, 8, 99, 99>]
