// RUN: convjit-opt -p fold-scale,dce --split-input-file %s | filecheck %s

// Bias, then BatchNorm in evaluation mode: one scaled weight, one bias.
func.func @forward(
    %x: tensor<1x8x8x3xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<16x3x3x3xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "conv.weight"},
    %b: tensor<16xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "conv.bias"},
    %mean: tensor<16xf32> {mlx.index = 3 : i64, mlx.kind = "parameter", mlx.name = "bn.running_mean"},
    %s: tensor<16xf32> {mlx.index = 4 : i64, mlx.kind = "parameter", mlx.name = "scale"},
    %beta: tensor<16xf32> {mlx.index = 5 : i64, mlx.kind = "parameter", mlx.name = "bn.bias"}
) -> tensor<1x6x6x16xf32> {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv" : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x6x6x16xf32>
  %bb = mlx.primitive "Broadcast"(%b) [array<i64: 1, 6, 6, 16>] : (tensor<16xf32>) -> tensor<1x6x6x16xf32>
  %y1 = mlx.primitive "Add"(%y, %bb) [] : (tensor<1x6x6x16xf32>, tensor<1x6x6x16xf32>) -> tensor<1x6x6x16xf32>
  %mb = mlx.primitive "Broadcast"(%mean) [array<i64: 1, 6, 6, 16>] : (tensor<16xf32>) -> tensor<1x6x6x16xf32>
  %y2 = mlx.primitive "Subtract"(%y1, %mb) [] : (tensor<1x6x6x16xf32>, tensor<1x6x6x16xf32>) -> tensor<1x6x6x16xf32>
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 6, 6, 16>] : (tensor<16xf32>) -> tensor<1x6x6x16xf32>
  %y3 = mlx.primitive "Multiply"(%sb, %y2) [] : (tensor<1x6x6x16xf32>, tensor<1x6x6x16xf32>) -> tensor<1x6x6x16xf32>
  %tb = mlx.primitive "Broadcast"(%beta) [array<i64: 1, 6, 6, 16>] : (tensor<16xf32>) -> tensor<1x6x6x16xf32>
  %y4 = mlx.primitive "Add"(%y3, %tb) [] : (tensor<1x6x6x16xf32>, tensor<1x6x6x16xf32>) -> tensor<1x6x6x16xf32>
  return %y4 : tensor<1x6x6x16xf32>
}
// CHECK-NOT:  "Multiply"(%sb
// CHECK:      [[T1:%[^ ]+]] = mlx.primitive "Subtract"(%b, %mean)
// CHECK-NEXT: [[T2:%[^ ]+]] = mlx.primitive "Multiply"([[T1]], %s)
// CHECK-NEXT: [[T3:%[^ ]+]] = mlx.primitive "Add"([[T2]], %beta)
// CHECK-NEXT: [[S1:%[^ ]+]] = mlx.primitive "Reshape"(%s) {{.*}} -> tensor<16x1x1x1xf32>
// CHECK-NEXT: [[S2:%[^ ]+]] = mlx.primitive "Broadcast"([[S1]]) {{.*}} -> tensor<16x3x3x3xf32>
// CHECK-NEXT: [[W:%[^ ]+]] = mlx.primitive "Multiply"(%w, [[S2]])
// CHECK-NEXT: [[Y:%[^ ]+]] = conv.general %x, [[W]] window {{.*}} layer "conv"
// CHECK-NEXT: [[B:%[^ ]+]] = mlx.primitive "Broadcast"([[T3]])
// CHECK-NEXT: [[Z:%[^ ]+]] = mlx.primitive "Add"([[Y]], [[B]])
// CHECK-NEXT: func.return [[Z]]

// -----

// Grouped and transposed alike: the scale follows the weight's output channels.
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x3x2xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "up.weight"},
    %s: tensor<1x1x6xf32> {mlx.index = 2 : i64, mlx.kind = "constant", mlx.name = "constant0"}
) -> tensor<1x9x6xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [2] : [2], dilation = [1], input_dilation = [2], groups = 2, flip> layer "up" : (tensor<1x4x4xf32>, tensor<6x3x2xf32>) -> tensor<1x9x6xf32>
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 9, 6>] : (tensor<1x1x6xf32>) -> tensor<1x9x6xf32>
  %z = mlx.primitive "Multiply"(%y, %sb) [] : (tensor<1x9x6xf32>, tensor<1x9x6xf32>) -> tensor<1x9x6xf32>
  return %z : tensor<1x9x6xf32>
}
// CHECK-NOT:  = mlx.primitive "Multiply"(%y
// CHECK:      [[W:%[^ ]+]] = mlx.primitive "Multiply"(%w, {{.*}}) {{.*}} -> tensor<6x3x2xf32>
// CHECK-NEXT: [[Y:%[^ ]+]] = conv.general %x, [[W]] window <{{.*}} groups = 2, flip>
// CHECK-NEXT: func.return [[Y]]

// -----

// What does not fold: a lone bias, ...
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %b: tensor<6xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "b"}
) -> tensor<1x4x6xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %bb = mlx.primitive "Broadcast"(%b) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %z = mlx.primitive "Add"(%y, %bb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  return %z : tensor<1x4x6xf32>
}
// CHECK:      %y = conv.general %x, %w
// CHECK-NEXT: %bb = mlx.primitive "Broadcast"(%b)
// CHECK-NEXT: %z = mlx.primitive "Add"(%y, %bb)

// -----

// ... a division, and what follows it: the parameter may hold 0, ...
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %s: tensor<6xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "s"}
) -> tensor<1x4x6xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %y1 = mlx.primitive "Divide"(%y, %sb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  %y2 = mlx.primitive "Multiply"(%y1, %sb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  return %y2 : tensor<1x4x6xf32>
}
// CHECK:      %y = conv.general %x, %w
// CHECK:      %y1 = mlx.primitive "Divide"(%y, %sb)
// CHECK-NEXT: %y2 = mlx.primitive "Multiply"(%y1, %sb)

// -----

// ... a scale that the program itself replaces, a value with another reader, a scale along a spatial axis, ...
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %s: tensor<6xf32> {mlx.index = 2 : i64, mlx.kind = "state", mlx.name = "s"},
    %t: tensor<6xf32> {mlx.index = 3 : i64, mlx.kind = "parameter", mlx.name = "t"},
    %u: tensor<4x1xf32> {mlx.index = 4 : i64, mlx.kind = "parameter", mlx.name = "u"}
) -> (tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>) {
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %tb = mlx.primitive "Broadcast"(%t) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %ub = mlx.primitive "Broadcast"(%u) [array<i64: 1, 4, 6>] : (tensor<4x1xf32>) -> tensor<1x4x6xf32>
  %a = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %a1 = mlx.primitive "Multiply"(%a, %sb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  %w1 = mlx.primitive "Slice"(%w) [array<i64: 0, 0, 0>, array<i64: 6, 1, 3>, array<i64: 1, 1, 1>] : (tensor<6x1x4xf32>) -> tensor<6x1x3xf32>
  %b = conv.general %a1, %w1 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 2> : (tensor<1x4x6xf32>, tensor<6x1x3xf32>) -> tensor<1x4x6xf32>
  %b1 = mlx.primitive "Multiply"(%b, %tb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  %d = conv.general %a1, %w1 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 2> : (tensor<1x4x6xf32>, tensor<6x1x3xf32>) -> tensor<1x4x6xf32>
  %ds = mlx.primitive "Sort"(%d) [1 : i64] : (tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  %d1 = mlx.primitive "Multiply"(%d, %tb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %c1 = mlx.primitive "Multiply"(%c, %ub) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  return %a1, %b, %b1, %ds, %d1, %c1 : tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>
}
// CHECK: mlx.primitive "Multiply"(%a, %sb)
// CHECK: mlx.primitive "Multiply"(%b, %tb)
// CHECK: mlx.primitive "Multiply"(%d, %tb)
// CHECK: mlx.primitive "Multiply"(%c, %ub)

// -----

// ... half storage (the scale could overflow the weight), and a weight that is an input (it would cost every call).
func.func @forward(
    %x: tensor<1x4x4xf16> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x1x4xf16> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %s: tensor<6xf16> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "s"},
    %x1: tensor<1x4x4xf32> {mlx.index = 3 : i64, mlx.kind = "input", mlx.name = "x1"},
    %w1: tensor<6x1x4xf32> {mlx.index = 4 : i64, mlx.kind = "input", mlx.name = "w1"},
    %s1: tensor<6xf32> {mlx.index = 5 : i64, mlx.kind = "parameter", mlx.name = "s1"}
) -> (tensor<1x4x6xf16>, tensor<1x4x6xf32>) {
  %a = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf16>, tensor<6x1x4xf16>) -> tensor<1x4x6xf16>
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 4, 6>] : (tensor<6xf16>) -> tensor<1x4x6xf16>
  %a1 = mlx.primitive "Multiply"(%a, %sb) [] : (tensor<1x4x6xf16>, tensor<1x4x6xf16>) -> tensor<1x4x6xf16>
  %b = conv.general %x1, %w1 window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %sb1 = mlx.primitive "Broadcast"(%s1) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %b1 = mlx.primitive "Multiply"(%b, %sb1) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  return %a1, %b1 : tensor<1x4x6xf16>, tensor<1x4x6xf32>
}
// CHECK: mlx.primitive "Multiply"(%a, %sb)
// CHECK: mlx.primitive "Multiply"(%b, %sb1)

// -----

// ... and a scale that every call brings along.
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<6x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %s: tensor<6xf32> {mlx.index = 2 : i64, mlx.kind = "input", mlx.name = "s"}
) -> tensor<1x4x6xf32> {
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 4, 6>] : (tensor<6xf32>) -> tensor<1x4x6xf32>
  %a = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<6x1x4xf32>) -> tensor<1x4x6xf32>
  %y = mlx.primitive "Multiply"(%a, %sb) [] : (tensor<1x4x6xf32>, tensor<1x4x6xf32>) -> tensor<1x4x6xf32>
  return %y : tensor<1x4x6xf32>
}
// CHECK: mlx.primitive "Multiply"(%a, %sb)
