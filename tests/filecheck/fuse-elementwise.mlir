// RUN: convjit-opt -p fuse-elementwise --split-input-file %s | filecheck %s

// Batch normalisation as training has it: sums over pixels, then what reads them.
func.func @forward(%x: tensor<2x4x4xf32>, %w: tensor<4x1x4xf32>, %gamma: tensor<4xf32>) -> (tensor<2x4x4xf32>, tensor<4xf32>) {
  %scale = mlx.constant 1.250000e-01 : f64 : tensor<f32>
  %y = conv.fused %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, tensor<4x1x4xf32>) -> tensor<2x4x4xf32>
  %total = mlx.primitive "Reduce"(%y) [2 : i64, array<i64: 0, 1>] : (tensor<2x4x4xf32>) -> tensor<1x1x4xf32>
  %narrow = mlx.primitive "Squeeze"(%total) [array<i64: 0, 1>] : (tensor<1x1x4xf32>) -> tensor<4xf32>
  %scales = mlx.primitive "Broadcast"(%scale) [array<i64: 4>] : (tensor<f32>) -> tensor<4xf32>
  %mean = mlx.primitive "Multiply"(%narrow, %scales) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %means = mlx.primitive "Broadcast"(%mean) [array<i64: 2, 4, 4>] : (tensor<4xf32>) -> tensor<2x4x4xf32>
  %centered = mlx.primitive "Subtract"(%y, %means) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %square = mlx.primitive "Square"(%centered) [] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %squares = mlx.primitive "Reduce"(%square) [2 : i64, array<i64: 0, 1>] : (tensor<2x4x4xf32>) -> tensor<1x1x4xf32>
  %variance = mlx.primitive "Squeeze"(%squares) [array<i64: 0, 1>] : (tensor<1x1x4xf32>) -> tensor<4xf32>
  %gammas = mlx.primitive "Broadcast"(%gamma) [array<i64: 2, 4, 4>] : (tensor<4xf32>) -> tensor<2x4x4xf32>
  %scaled = mlx.primitive "Multiply"(%gammas, %centered) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %z = conv.fused %scaled, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, tensor<4x1x4xf32>) -> tensor<2x4x4xf32>
  return %z, %variance : tensor<2x4x4xf32>, tensor<4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %y = conv.fused %x, %w
// CHECK:         %total = conv.elementwise over <[2, 4, 4]> sums <[0]> layer "elementwise.2"(%y) {
// CHECK-NEXT:    ^{{.*}}(%y_1: f32):
// CHECK-NEXT:      conv.yield %y_1 : f32
// CHECK-NEXT:    } {fused = "{{.*}}"} : (tensor<2x4x4xf32>) -> tensor<1x1x4xf32>
// CHECK:         %mean = conv.elementwise over <[4]> layer "elementwise.{{[0-9]+}}"(%total) {
// CHECK:           arith.mulf
// CHECK:         } {fused = "{{.*}}"} : (tensor<1x1x4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %squares, %scaled = conv.elementwise over <[2, 4, 4]> sums <[0]> layer "elementwise.{{[0-9]+}}"(%y, %mean, %gamma) {
// CHECK-NEXT:    ^{{.*}}([[Y:%[^:]+]]: f32, [[MEAN:%[^:]+]]: f32, [[GAMMA:%[^:]+]]: f32):
// CHECK-NEXT:      [[C:%[^ ]+]] = arith.subf [[Y]], [[MEAN]] : f32
// CHECK-NEXT:      [[Q:%[^ ]+]] = arith.mulf [[C]], [[C]] : f32
// CHECK-NEXT:      [[S:%[^ ]+]] = arith.mulf [[GAMMA]], [[C]] : f32
// CHECK-NEXT:      conv.yield [[Q]], [[S]] : f32, f32
// CHECK-NEXT:    } {fused = "Subtract Square Reduce Multiply"} : (tensor<2x4x4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<1x1x4xf32>, tensor<2x4x4xf32>)
// CHECK:         %z = conv.fused %scaled, %w

// -----

// The mask of a ReLU reads the ReLU's result, and each of its readers makes it for itself: predicates are not stored.
func.func @forward(%x: tensor<2x4x4xf32>, %w: tensor<4x1x4xf32>, %dy: tensor<2x4x4xf32>) -> tensor<2x4x4xf32> {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %zeros = mlx.primitive "Broadcast"(%0) [array<i64: 2, 4, 4>] : (tensor<f32>) -> tensor<2x4x4xf32>
  %before = mlx.primitive "Add"(%x, %dy) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %relu = mlx.primitive "Maximum"(%before, %zeros) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %y = conv.fused %relu, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, tensor<4x1x4xf32>) -> tensor<2x4x4xf32>
  %sorted = mlx.primitive "Sort"(%y) [1 : i64] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %greater = mlx.primitive "Greater"(%before, %zeros) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xi1>
  %mask = mlx.primitive "AsType"(%greater) [f32] : (tensor<2x4x4xi1>) -> tensor<2x4x4xf32>
  %masked = mlx.primitive "Multiply"(%sorted, %mask) [] : (tensor<2x4x4xf32>, tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %dx = conv.fused %masked, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, tensor<4x1x4xf32>) -> tensor<2x4x4xf32>
  return %dx : tensor<2x4x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %relu = conv.elementwise over <[2, 4, 4]> layer "elementwise.{{[0-9]+}}"(%x, %dy) {
// CHECK:         %y = conv.fused %relu, %w
// CHECK:         %sorted = mlx.primitive "Sort"(%y)
// CHECK-NEXT:    %masked = conv.elementwise over <[2, 4, 4]> layer "elementwise.{{[0-9]+}}"(%relu, %sorted) {
// CHECK-NEXT:    ^{{.*}}([[RELU:%[^:]+]]: f32, [[SORTED:%[^:]+]]: f32):
// CHECK:           [[GREATER:%[^ ]+]] = arith.cmpf ogt, [[RELU]],
// CHECK-NEXT:      [[MASK:%[^ ]+]] = arith.uitofp [[GREATER]] : i1 to f32
// CHECK-NEXT:      arith.mulf [[SORTED]], [[MASK]] : f32

// -----

// Far from any convolution nothing changes.
func.func @forward(%x: tensor<2x4xf32>, %y: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %a = mlx.primitive "Add"(%x, %y) [] : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %b = mlx.primitive "Multiply"(%a, %y) [] : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  return %b : tensor<2x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %a = mlx.primitive "Add"
// CHECK-NEXT:    %b = mlx.primitive "Multiply"
