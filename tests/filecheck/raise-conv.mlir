// RUN: convjit-opt -p raise-conv --split-input-file %s | filecheck %s

// A strided 2D convolution; its layer is the path of the module that holds the weight.
func.func @forward(
    %x: tensor<1x8x8x3xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<16x3x3x3xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "layers.0.conv1.weight"}
) -> tensor<1x4x4x16xf32> {
  %y = mlx.primitive "Convolution"(%x, %w) [array<i64: 2, 2>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, array<i64: 1, 1>, 1 : i64, false] : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x4x4x16xf32>
  return %y : tensor<1x4x4x16xf32>
}
// CHECK: %y = conv.general %x, %w window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "layers.0.conv1" :
// CHECK-NOT: Convolution

// -----

// A grouped, transposed 1D convolution with output padding; the weight is looked for through its transposition.
func.func @forward(
    %x: tensor<2x5x4xf16> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<2x3x6xf16> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "up.weight"}
) -> tensor<2x10x6xf16> {
  %t = mlx.primitive "Transpose"(%w) [array<i64: 2, 1, 0>] : (tensor<2x3x6xf16>) -> tensor<6x3x2xf16>
  %y = mlx.primitive "Convolution"(%x, %t) [array<i64: 1>, array<i64: 1>, array<i64: 2>, array<i64: 1>, array<i64: 2>, 2 : i64, true] : (tensor<2x5x4xf16>, tensor<6x3x2xf16>) -> tensor<2x10x6xf16>
  return %y : tensor<2x10x6xf16>
}
// CHECK: conv.general %x, %t window <strides = [1], pad = [1] : [2], dilation = [1], input_dilation = [2], groups = 2, flip> layer "up" :

// -----

// One weight, two calls: two layers, so that a report can tell them apart.
func.func @forward(%x: tensor<1x4x4x4xf32>, %w: tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32> {
  %y = mlx.primitive "Convolution"(%x, %w) [array<i64: 1, 1>, array<i64: 0, 0>, array<i64: 0, 0>, array<i64: 1, 1>, array<i64: 1, 1>, 1 : i64, false] : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32>
  %z = mlx.primitive "Convolution"(%y, %w) [array<i64: 1, 1>, array<i64: 0, 0>, array<i64: 0, 0>, array<i64: 1, 1>, array<i64: 1, 1>, 1 : i64, false] : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32>
  return %z : tensor<1x4x4x4xf32>
}
// CHECK: conv.general %x, %w {{.*}} layer "conv" :
// CHECK: conv.general %y, %w {{.*}} layer "conv#2" :

// -----

// What stays a primitive: float64, an empty batch, a kernel larger than its input (MLX gives one column).
func.func @forward(%d: tensor<1x4x2xf64>, %wd: tensor<2x3x2xf64>, %e: tensor<0x4x2xf32>, %w: tensor<2x3x2xf32>, %s: tensor<1x2x2xf32>) -> (tensor<1x2x2xf64>, tensor<0x2x2xf32>, tensor<1x1x2xf32>) {
  %a = mlx.primitive "Convolution"(%d, %wd) [array<i64: 1>, array<i64: 0>, array<i64: 0>, array<i64: 1>, array<i64: 1>, 1 : i64, false] : (tensor<1x4x2xf64>, tensor<2x3x2xf64>) -> tensor<1x2x2xf64>
  %b = mlx.primitive "Convolution"(%e, %w) [array<i64: 1>, array<i64: 0>, array<i64: 0>, array<i64: 1>, array<i64: 1>, 1 : i64, false] : (tensor<0x4x2xf32>, tensor<2x3x2xf32>) -> tensor<0x2x2xf32>
  %c = mlx.primitive "Convolution"(%s, %w) [array<i64: 1>, array<i64: 0>, array<i64: 0>, array<i64: 1>, array<i64: 1>, 1 : i64, false] : (tensor<1x2x2xf32>, tensor<2x3x2xf32>) -> tensor<1x1x2xf32>
  return %a, %b, %c : tensor<1x2x2xf64>, tensor<0x2x2xf32>, tensor<1x1x2xf32>
}
// CHECK-NOT: conv.general
// CHECK: "Convolution"(%d, %wd)
// CHECK-NEXT: "Convolution"(%e, %w)
// CHECK-NEXT: "Convolution"(%s, %w)

// -----

// A convolution that a backend refused stays what MLX traced, and keeps the reason.
func.func @forward(%x: tensor<1x4x4x4xf32>, %w: tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32> {
  %y = mlx.primitive "Convolution"(%x, %w) [array<i64: 1, 1>, array<i64: 0, 0>, array<i64: 0, 0>, array<i64: 1, 1>, array<i64: 1, 1>, 1 : i64, false] {refused = "too small"} : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32>
  return %y : tensor<1x4x4x4xf32>
}
// CHECK-NOT: conv.general
// CHECK: "Convolution"(%x, %w) {{.*}} {refused = "too small", layer = "conv"} :
