// RUN: convjit-opt -p hoist-prepare --split-input-file %s | filecheck %s

// A folded weight is computed once a version of the weights; a bias is broadcast in every call, not stored wide.
func.func @forward(
    %x: tensor<1x64x64x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<8x1x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "conv.weight"},
    %s: tensor<8x1x1x1xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "scale"},
    %b: tensor<8xf32> {mlx.index = 3 : i64, mlx.kind = "parameter", mlx.name = "bias"}
) -> tensor<1x64x64x8xf32> {
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 8, 1, 1, 4>] : (tensor<8x1x1x1xf32>) -> tensor<8x1x1x4xf32>
  %w2 = mlx.primitive "Multiply"(%w, %sb) [] : (tensor<8x1x1x4xf32>, tensor<8x1x1x4xf32>) -> tensor<8x1x1x4xf32>
  %y = conv.general %x, %w2 window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x64x64x4xf32>, tensor<8x1x1x4xf32>) -> tensor<1x64x64x8xf32>
  %bn = mlx.primitive "Negative"(%b) [] : (tensor<8xf32>) -> tensor<8xf32>
  %bb = mlx.primitive "Broadcast"(%bn) [array<i64: 1, 64, 64, 8>] : (tensor<8xf32>) -> tensor<1x64x64x8xf32>
  %be = mlx.primitive "Exp"(%bb) [] : (tensor<1x64x64x8xf32>) -> tensor<1x64x64x8xf32>
  %z = mlx.primitive "Add"(%y, %be) [] : (tensor<1x64x64x8xf32>, tensor<1x64x64x8xf32>) -> tensor<1x64x64x8xf32>
  return %z : tensor<1x64x64x8xf32>
}
// CHECK:      func.func @prepare(%w: tensor<8x1x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "conv.weight"}, %s: tensor<8x1x1x1xf32> {mlx.index = 2 : i64, {{.*}}}, %b: tensor<8xf32> {mlx.index = 3 : i64, {{.*}}}) -> (tensor<8x1x1x4xf32>, tensor<8xf32>) {
// CHECK-NEXT:   %sb = mlx.primitive "Broadcast"(%s)
// CHECK-NEXT:   %w2 = mlx.primitive "Multiply"(%w, %sb)
// CHECK-NEXT:   %bn = mlx.primitive "Negative"(%b)
// CHECK-NEXT:   func.return %w2, %bn
// CHECK:      func.func @forward(%x: tensor<1x64x64x4xf32> {{{.*}}mlx.kind = "input"{{.*}}}, %w2: tensor<8x1x1x4xf32> {mlx.index = 0 : i64, mlx.kind = "prepared"}, %bn: tensor<8xf32> {mlx.index = 1 : i64, mlx.kind = "prepared"})
// CHECK-NEXT:   %y = conv.general %x, %w2
// CHECK-NEXT:   %bb = mlx.primitive "Broadcast"(%bn)
// CHECK-NEXT:   %be = mlx.primitive "Exp"(%bb)

// -----

// A broadcast that both sides read is made on both: it does not keep the weight out of @prepare.
func.func @forward(
    %x: tensor<8x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<8x4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"}
) -> (tensor<8x4xf32>, tensor<8x4xf32>) {
  %c = mlx.constant 2.0 : f64 : tensor<f32>
  %cb = mlx.primitive "Broadcast"(%c) [array<i64: 8, 4>] : (tensor<f32>) -> tensor<8x4xf32>
  %v = mlx.primitive "Multiply"(%w, %cb) [] : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %y = mlx.primitive "Multiply"(%x, %cb) [] : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %z = mlx.primitive "Add"(%y, %v) [] : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  return %y, %z : tensor<8x4xf32>, tensor<8x4xf32>
}
// CHECK:      func.func @prepare(
// CHECK-NEXT:   mlx.constant 2.
// CHECK-NEXT:   mlx.primitive "Broadcast"
// CHECK-NEXT:   mlx.primitive "Multiply"(%w
// CHECK-NEXT:   func.return
// CHECK:      func.func @forward(
// CHECK-NEXT:   mlx.constant 2.
// CHECK-NEXT:   mlx.primitive "Broadcast"
// CHECK-NEXT:   mlx.primitive "Multiply"(%x
// CHECK-NEXT:   mlx.primitive "Add"(%y, %v)

// -----

// What the program itself replaces is not prepared; a parameter that is read as it is stays an argument.
func.func @forward(
    %x: tensor<4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %m: tensor<4xf32> {mlx.index = 1 : i64, mlx.kind = "state", mlx.name = "bn.running_mean"},
    %g: tensor<4xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "bn.weight"}
) -> (tensor<4xf32>, tensor<4xf32>) {
  %n = mlx.primitive "Negative"(%m) [] : (tensor<4xf32>) -> tensor<4xf32>
  %y = mlx.primitive "Add"(%x, %n) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %z = mlx.primitive "Multiply"(%y, %g) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %z, %n : tensor<4xf32>, tensor<4xf32>
}
// CHECK-NOT: @prepare
// CHECK:     func.func @forward(%x: {{.*}}, %m: {{.*}} {mlx.index = 1 : i64, mlx.kind = "state", {{.*}}}, %g: {{.*}} {mlx.index = 2 : i64, mlx.kind = "parameter", {{.*}}})
// CHECK:     "Negative"(%m)

// -----

// A weight is packed once a version; one that is an argument of the call is packed in the call.
func.func @forward(
    %x: tensor<1x4x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %v: tensor<4x1x4xf32> {mlx.index = 1 : i64, mlx.kind = "input", mlx.name = "v"},
    %w: tensor<4x1x4xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "w"}
) -> tensor<1x4x4xf32> {
  %p = conv.pack %v window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> schedule <"some.c"> : tensor<4x1x4xf32> -> !conv.packed<tensor<4x1x4xf32>>
  %a = conv.fused %x, %p window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> schedule <"some.c"> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, !conv.packed<tensor<4x1x4xf32>>) -> tensor<1x4x4xf32>
  %q = conv.pack %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> schedule <"some.c"> : tensor<4x1x4xf32> -> !conv.packed<tensor<4x1x4xf32>>
  %b = conv.fused %a, %q window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> schedule <"some.c"> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, !conv.packed<tensor<4x1x4xf32>>) -> tensor<1x4x4xf32>
  return %b : tensor<1x4x4xf32>
}
// CHECK:      func.func @prepare(%w: tensor<4x1x4xf32> {{{.*}}}) -> !conv.packed<tensor<4x1x4xf32>> {
// CHECK-NEXT:   %q = conv.pack %w
// CHECK-NEXT:   func.return %q
// CHECK:      func.func @forward(%x: tensor<1x4x4xf32> {{{.*}}}, %v: tensor<4x1x4xf32> {{{.*}}}, %q: !conv.packed<tensor<4x1x4xf32>> {mlx.index = 0 : i64, mlx.kind = "prepared"})
// CHECK-NEXT:   %p = conv.pack %v
// CHECK-NEXT:   conv.fused %x, %p
// CHECK:        conv.fused %a, %q

// -----

// What both sides broadcast is prepared once.
func.func @forward(
    %x: tensor<2x4xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"},
    %w: tensor<4xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "w"},
    %m: tensor<2x4xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "m"}
) -> tensor<2x4xf32> {
  %n = mlx.primitive "Negative"(%w) [] : (tensor<4xf32>) -> tensor<4xf32>
  %b = mlx.primitive "Broadcast"(%n) [array<i64: 2, 4>] : (tensor<4xf32>) -> tensor<2x4xf32>
  %v = mlx.primitive "Multiply"(%m, %b) [] : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %y = mlx.primitive "Multiply"(%x, %b) [] : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %z = mlx.primitive "Add"(%y, %v) [] : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  return %z : tensor<2x4xf32>
}
// CHECK:      func.func @prepare(%w: {{.*}}, %m: {{.*}}) -> (tensor<4xf32>, tensor<2x4xf32>) {
// CHECK-NEXT:   %n = mlx.primitive "Negative"(%w)
// CHECK-NEXT:   %b = mlx.primitive "Broadcast"(%n)
// CHECK-NEXT:   %v = mlx.primitive "Multiply"(%m, %b)
// CHECK-NEXT:   func.return %n, %v
// CHECK:      func.func @forward(%x: {{.*}}, %n: tensor<4xf32> {mlx.index = 0 : i64, mlx.kind = "prepared"}, %v: tensor<2x4xf32> {mlx.index = 1 : i64, mlx.kind = "prepared"})
// CHECK-NEXT:   %b = mlx.primitive "Broadcast"(%n)
// CHECK-NEXT:   %y = mlx.primitive "Multiply"(%x, %b)
// CHECK-NEXT:   mlx.primitive "Add"(%y, %v)
