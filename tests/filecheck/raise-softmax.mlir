// RUN: convjit-opt -p raise-softmax --split-input-file %s | filecheck %s

func.func @forward(%x: tensor<2x9x4xf16>, %w: tensor<4x1x4xf16>) -> (tensor<2x9x4xf16>, tensor<2x9x4xf16>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x9x4xf16>, tensor<4x1x4xf16>) -> tensor<2x9x4xf16>
  %y = mlx.primitive "Softmax"(%c) [true] : (tensor<2x9x4xf16>) -> tensor<2x9x4xf16>
  %z = mlx.primitive "Softmax"(%x) [false] : (tensor<2x9x4xf16>) -> tensor<2x9x4xf16>
  return %y, %z : tensor<2x9x4xf16>, tensor<2x9x4xf16>
}
// CHECK: %y = conv.softmax %c layer "softmax" : tensor<2x9x4xf16> -> tensor<2x9x4xf16>
// CHECK-NEXT: %z = conv.softmax %x layer "softmax#2" : tensor<2x9x4xf16> -> tensor<2x9x4xf16>

// -----

// What stays: what was refused, other dtypes, empty arrays.
func.func @forward(%x: tensor<2x9x4xf32>, %w: tensor<4x1x4xf32>, %d: tensor<3xf64>, %e: tensor<0x3xf32>) -> (tensor<2x9x4xf32>, tensor<3xf64>, tensor<0x3xf32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x9x4xf32>, tensor<4x1x4xf32>) -> tensor<2x9x4xf32>
  %y = mlx.primitive "Softmax"(%c) [true] {refused = "it failed"} : (tensor<2x9x4xf32>) -> tensor<2x9x4xf32>
  %z = mlx.primitive "Softmax"(%d) [true] : (tensor<3xf64>) -> tensor<3xf64>
  %n = mlx.primitive "Softmax"(%e) [true] : (tensor<0x3xf32>) -> tensor<0x3xf32>
  return %y, %z, %n : tensor<2x9x4xf32>, tensor<3xf64>, tensor<0x3xf32>
}
// CHECK-NOT: conv.softmax

// -----

// And functions without a convolution.
func.func @forward(%x: tensor<2x9x4xf32>) -> tensor<2x9x4xf32> {
  %y = mlx.primitive "Softmax"(%x) [true] : (tensor<2x9x4xf32>) -> tensor<2x9x4xf32>
  return %y : tensor<2x9x4xf32>
}
// CHECK-NOT: conv.softmax
