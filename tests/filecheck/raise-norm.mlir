// RUN: convjit-opt -p raise-norm --split-input-file %s | filecheck %s

// A LayerNorm: over the channels of each pixel.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%c, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %y : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %y = conv.norm %c as <[12, 1, 1, 4]> eps 1.000000e-05 : f64 centered layer "norm" {
// CHECK-NEXT:    ^bb0(%normalised: f32):
// CHECK-NEXT:      conv.yield %normalised : f32
// CHECK-NEXT:    } : tensor<2x6x4xf32> -> tensor<2x6x4xf32>
// CHECK-NEXT:    func.return %y

// -----

// An RMSNorm of a half type: it reads that, and gives floats, which MLX rounds behind it.
func.func @forward(%x: tensor<2x6x4xbf16>, %w: tensor<4x1x4xbf16>) -> tensor<2x6x4xbf16> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xbf16>, tensor<4x1x4xbf16>) -> tensor<2x6x4xbf16>
  %c32 = mlx.primitive "AsType"(%c) [f32] : (tensor<2x6x4xbf16>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %q = mlx.primitive "Square"(%c32) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%c32, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %z = mlx.primitive "AsType"(%y) [bf16] : (tensor<2x6x4xf32>) -> tensor<2x6x4xbf16>
  return %z : tensor<2x6x4xbf16>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %y = conv.norm %c as <[12, 1, 1, 4]> eps 1.000000e-05 : f64 layer "norm" {
// CHECK:         } : tensor<2x6x4xbf16> -> tensor<2x6x4xf32>
// CHECK-NEXT:    %z = mlx.primitive "AsType"(%y) [bf16]
// CHECK-NEXT:    func.return %z

// -----

// A GroupNorm: what brings the pixels of a group together, and back, is gone.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %v1 = mlx.primitive "Reshape"(%c) [array<i64: 2, -1, 2, 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x2x2xf32>
  %v2 = mlx.primitive "Transpose"(%v1) [array<i64: 0, 2, 1, 3>] : (tensor<2x6x2x2xf32>) -> tensor<2x2x6x2xf32>
  %v3 = mlx.primitive "Reshape"(%v2) [array<i64: 2, 2, -1>] : (tensor<2x2x6x2xf32>) -> tensor<2x2x12xf32>
  %n = mlx.constant 0.08333333333333333 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 2, 1>] : (tensor<f32>) -> tensor<2x2x1xf32>
  %s = mlx.primitive "Reduce"(%v3) [2 : i64, array<i64: 2>] : (tensor<2x2x12xf32>) -> tensor<2x2x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x2x1xf32>, tensor<2x2x1xf32>) -> tensor<2x2x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 2, 12>] : (tensor<2x2x1xf32>) -> tensor<2x2x12xf32>
  %d = mlx.primitive "Subtract"(%v3, %mb) [] : (tensor<2x2x12xf32>, tensor<2x2x12xf32>) -> tensor<2x2x12xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x2x12xf32>) -> tensor<2x2x12xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x2x12xf32>) -> tensor<2x2x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x2x1xf32>, tensor<2x2x1xf32>) -> tensor<2x2x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 2, 1>] : (tensor<f32>) -> tensor<2x2x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x2x1xf32>, tensor<2x2x1xf32>) -> tensor<2x2x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x2x1xf32>) -> tensor<2x2x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 2, 12>] : (tensor<2x2x1xf32>) -> tensor<2x2x12xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x2x12xf32>, tensor<2x2x12xf32>) -> tensor<2x2x12xf32>
  %y1 = mlx.primitive "Reshape"(%y) [array<i64: 2, 2, -1, 2>] : (tensor<2x2x12xf32>) -> tensor<2x2x6x2xf32>
  %y2 = mlx.primitive "Transpose"(%y1) [array<i64: 0, 2, 1, 3>] : (tensor<2x2x6x2xf32>) -> tensor<2x6x2x2xf32>
  %z = mlx.primitive "Reshape"(%y2) [array<i64: 2, 6, 4>] : (tensor<2x6x2x2xf32>) -> tensor<2x6x4xf32>
  return %z : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %z = conv.norm %c as <[2, 6, 2, 2]> eps 1.000000e-05 : f64 centered layer "norm" {
// CHECK:         } : tensor<2x6x4xf32> -> tensor<2x6x4xf32>
// CHECK-NEXT:    func.return %z

// -----

// An InstanceNorm of a half type. Who reads channels first gets them so.
func.func @forward(%x: tensor<2x6x4xf16>, %w: tensor<4x1x4xf16>) -> (tensor<2x6x4xf16>, tensor<2x4x6xf16>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf16>, tensor<4x1x4xf16>) -> tensor<2x6x4xf16>
  %v1 = mlx.primitive "Transpose"(%c) [array<i64: 0, 2, 1>] : (tensor<2x6x4xf16>) -> tensor<2x4x6xf16>
  %v2 = mlx.primitive "Reshape"(%v1) [array<i64: 2, 4, -1>] : (tensor<2x4x6xf16>) -> tensor<2x4x6xf16>
  %v3 = mlx.primitive "AsType"(%v2) [f32] : (tensor<2x4x6xf16>) -> tensor<2x4x6xf32>
  %n = mlx.constant 0.16666666666666666 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 4, 1>] : (tensor<f32>) -> tensor<2x4x1xf32>
  %s = mlx.primitive "Reduce"(%v3) [2 : i64, array<i64: 2>] : (tensor<2x4x6xf32>) -> tensor<2x4x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x4x1xf32>, tensor<2x4x1xf32>) -> tensor<2x4x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 4, 6>] : (tensor<2x4x1xf32>) -> tensor<2x4x6xf32>
  %d = mlx.primitive "Subtract"(%v3, %mb) [] : (tensor<2x4x6xf32>, tensor<2x4x6xf32>) -> tensor<2x4x6xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x4x6xf32>) -> tensor<2x4x6xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x4x6xf32>) -> tensor<2x4x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x4x1xf32>, tensor<2x4x1xf32>) -> tensor<2x4x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 4, 1>] : (tensor<f32>) -> tensor<2x4x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x4x1xf32>, tensor<2x4x1xf32>) -> tensor<2x4x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x4x1xf32>) -> tensor<2x4x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 4, 6>] : (tensor<2x4x1xf32>) -> tensor<2x4x6xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x4x6xf32>, tensor<2x4x6xf32>) -> tensor<2x4x6xf32>
  %y1 = mlx.primitive "AsType"(%y) [f16] : (tensor<2x4x6xf32>) -> tensor<2x4x6xf16>
  %y2 = mlx.primitive "Reshape"(%y1) [array<i64: 2, 4, 6>] : (tensor<2x4x6xf16>) -> tensor<2x4x6xf16>
  %z = mlx.primitive "Transpose"(%y2) [array<i64: 0, 2, 1>] : (tensor<2x4x6xf16>) -> tensor<2x6x4xf16>
  return %z, %y2 : tensor<2x6x4xf16>, tensor<2x4x6xf16>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    [[Y:%[^ ]+]] = conv.norm %c as <[2, 6, 4, 1]> eps 1.000000e-05 : f64 centered layer "norm" {
// CHECK:         } : tensor<2x6x4xf16> -> tensor<2x6x4xf32>
// CHECK-NEXT:    %z = mlx.primitive "AsType"([[Y]]) [f16]
// CHECK-NEXT:    %y2 = mlx.primitive "Transpose"(%z) [array<i64: 0, 2, 1>]
// CHECK-NEXT:    func.return %z, %y2

// -----

// Divided by 5, not by 4: what is subtracted is no mean, and a factor makes up for that of the squares. %z stays: along
// another axis only means can be subtracted.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> (tensor<2x6x4xf32>, tensor<2x6x4xf32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.2 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%c, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zn = mlx.constant 0.25 : f64 : tensor<f32>
  %zeps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %znb = mlx.primitive "Broadcast"(%zn) [array<i64: 2, 1, 4>] : (tensor<f32>) -> tensor<2x1x4xf32>
  %zs = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 1>] : (tensor<2x6x4xf32>) -> tensor<2x1x4xf32>
  %zm = mlx.primitive "Multiply"(%zs, %znb) [] : (tensor<2x1x4xf32>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  %zmb = mlx.primitive "Broadcast"(%zm) [array<i64: 2, 6, 4>] : (tensor<2x1x4xf32>) -> tensor<2x6x4xf32>
  %zd = mlx.primitive "Subtract"(%c, %zmb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zq = mlx.primitive "Square"(%zd) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zt = mlx.primitive "Reduce"(%zq) [2 : i64, array<i64: 1>] : (tensor<2x6x4xf32>) -> tensor<2x1x4xf32>
  %zu = mlx.primitive "Multiply"(%zt, %znb) [] : (tensor<2x1x4xf32>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  %zeb = mlx.primitive "Broadcast"(%zeps) [array<i64: 2, 1, 4>] : (tensor<f32>) -> tensor<2x1x4xf32>
  %za = mlx.primitive "Add"(%zu, %zeb) [] : (tensor<2x1x4xf32>, tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  %zr = mlx.primitive "Sqrt"(%za) [true] : (tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  %zrb = mlx.primitive "Broadcast"(%zr) [array<i64: 2, 6, 4>] : (tensor<2x1x4xf32>) -> tensor<2x6x4xf32>
  %z = mlx.primitive "Multiply"(%zd, %zrb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %y, %z : tensor<2x6x4xf32>, tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %d = mlx.primitive "Subtract"(%c, %mb)
// CHECK-NEXT:    %0 = conv.norm %d as <[12, 1, 1, 4]> eps 1.250000e-05 : f64 layer "norm" {
// CHECK:         %1 = mlx.constant 1.1180339887498949 : f64
// CHECK:         %y = mlx.primitive "Multiply"(%0, %2)
// CHECK-NOT:     conv.norm

// -----

// An inner value that is read elsewhere, as gradients do.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> (tensor<2x6x4xf32>, tensor<2x6x1xf32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%c, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %y, %r : tensor<2x6x4xf32>, tensor<2x6x1xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NOT:     conv.norm

// -----

// The root itself, not one divided by it.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%c, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [false] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %y : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NOT:     conv.norm

// -----

// A function without a convolution.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%x) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%x, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %y : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NOT:     conv.norm

// -----

// One that a backend refused; the other keeps its name.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %n = mlx.constant 0.25 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %s = mlx.primitive "Reduce"(%c) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %m = mlx.primitive "Multiply"(%s, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %d = mlx.primitive "Subtract"(%c, %mb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %q = mlx.primitive "Square"(%d) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %u = mlx.primitive "Multiply"(%t, %nb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %a = mlx.primitive "Add"(%u, %eb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %r = mlx.primitive "Sqrt"(%a) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %y = mlx.primitive "Multiply"(%d, %rb) [] {refused = "it is wrong here"} : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zn = mlx.constant 0.25 : f64 : tensor<f32>
  %zeps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %znb = mlx.primitive "Broadcast"(%zn) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %zs = mlx.primitive "Reduce"(%y) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %zm = mlx.primitive "Multiply"(%zs, %znb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %zmb = mlx.primitive "Broadcast"(%zm) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %zd = mlx.primitive "Subtract"(%y, %zmb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zq = mlx.primitive "Square"(%zd) [] : (tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  %zt = mlx.primitive "Reduce"(%zq) [2 : i64, array<i64: 2>] : (tensor<2x6x4xf32>) -> tensor<2x6x1xf32>
  %zu = mlx.primitive "Multiply"(%zt, %znb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %zeb = mlx.primitive "Broadcast"(%zeps) [array<i64: 2, 6, 1>] : (tensor<f32>) -> tensor<2x6x1xf32>
  %za = mlx.primitive "Add"(%zu, %zeb) [] : (tensor<2x6x1xf32>, tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %zr = mlx.primitive "Sqrt"(%za) [true] : (tensor<2x6x1xf32>) -> tensor<2x6x1xf32>
  %zrb = mlx.primitive "Broadcast"(%zr) [array<i64: 2, 6, 4>] : (tensor<2x6x1xf32>) -> tensor<2x6x4xf32>
  %z = mlx.primitive "Multiply"(%zd, %zrb) [] : (tensor<2x6x4xf32>, tensor<2x6x4xf32>) -> tensor<2x6x4xf32>
  return %z : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %y = mlx.primitive "Multiply"(%d, %rb) [] {refused = "it is wrong here"}
// CHECK-NEXT:    %z = conv.norm %y as <[12, 1, 1, 4]> eps 1.000000e-05 : f64 centered layer "norm#2" {

// -----

// MLX's own GroupNorm of 2 groups, as one writes it by hand: every 2nd channel is in a group. One of the sums was a pool.
func.func @forward(%x: tensor<2x6x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x6x4xf32> {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x6x4xf32>, tensor<4x1x4xf32>) -> tensor<2x6x4xf32>
  %v = mlx.primitive "Reshape"(%c) [array<i64: 2, -1, 2>] : (tensor<2x6x4xf32>) -> tensor<2x12x2xf32>
  %two = mlx.constant 2.0 : f64 : tensor<f32>
  %n = mlx.constant 12.0 : f64 : tensor<f32>
  %eps = mlx.constant 1.000000e-05 : f64 : tensor<f32>
  %nb = mlx.primitive "Broadcast"(%n) [array<i64: 2, 1, 2>] : (tensor<f32>) -> tensor<2x1x2xf32>
  %s = conv.pool "sum" of %v kernel <[12]> window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 2> : tensor<2x12x2xf32> -> tensor<2x1x2xf32>
  %m = mlx.primitive "Divide"(%s, %nb) [] : (tensor<2x1x2xf32>, tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %mb = mlx.primitive "Broadcast"(%m) [array<i64: 2, 12, 2>] : (tensor<2x1x2xf32>) -> tensor<2x12x2xf32>
  %d = mlx.primitive "Subtract"(%v, %mb) [] : (tensor<2x12x2xf32>, tensor<2x12x2xf32>) -> tensor<2x12x2xf32>
  %tb = mlx.primitive "Broadcast"(%two) [array<i64: 2, 12, 2>] : (tensor<f32>) -> tensor<2x12x2xf32>
  %q = mlx.primitive "Power"(%d, %tb) [] : (tensor<2x12x2xf32>, tensor<2x12x2xf32>) -> tensor<2x12x2xf32>
  %t = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 1>] : (tensor<2x12x2xf32>) -> tensor<2x1x2xf32>
  %u = mlx.primitive "Divide"(%t, %nb) [] : (tensor<2x1x2xf32>, tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %eb = mlx.primitive "Broadcast"(%eps) [array<i64: 2, 1, 2>] : (tensor<f32>) -> tensor<2x1x2xf32>
  %a = mlx.primitive "Add"(%eb, %u) [] : (tensor<2x1x2xf32>, tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %r = mlx.primitive "Sqrt"(%a) [false] : (tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 12, 2>] : (tensor<2x1x2xf32>) -> tensor<2x12x2xf32>
  %y = mlx.primitive "Divide"(%d, %rb) [] : (tensor<2x12x2xf32>, tensor<2x12x2xf32>) -> tensor<2x12x2xf32>
  %z = mlx.primitive "Reshape"(%y) [array<i64: 2, 6, 4>] : (tensor<2x12x2xf32>) -> tensor<2x6x4xf32>
  return %z : tensor<2x6x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %z = conv.norm %c as <[2, 6, 2, 2]> interleaved eps 1.000000e-05 : f64 centered layer "norm" {
// CHECK:         } : tensor<2x6x4xf32> -> tensor<2x6x4xf32>
// CHECK-NEXT:    func.return %z
