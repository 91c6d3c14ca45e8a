// RUN: convjit-opt -p form-stretches --split-input-file %s | filecheck %s

// Two kernels in a row are one stretch, of which only what is read outside comes out. The pooling that depends on
// the stretch runs behind it, the independent one in front of it; the kernel that reads the pooling starts another.
func.func @forward(%x: tensor<1x4x4xf32>, %w: tensor<4x1x4xf32>) -> (tensor<1x4x4xf32>, tensor<1x4x4xf32>) {
  %a = conv.fused %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %p = mlx.primitive "Sort"(%x) [1 : i64] : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %b = conv.fused %a, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> extras(%p : tensor<1x4x4xf32>) {
  ^bb0(%sum: f32, %e: f32):
    %s = arith.addf %sum, %e : f32
    conv.yield %s : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %q = mlx.primitive "Sort"(%b) [1 : i64] : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %c = conv.fused %q, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  return %c, %b : tensor<1x4x4xf32>, tensor<1x4x4xf32>
}
// CHECK:      func.func @forward
// CHECK-NEXT:   %p = mlx.primitive "Sort"(%x)
// CHECK-NEXT:   %b = conv.stretch(%x, %w, %p) {
// CHECK-NEXT:   ^{{.*}}:
// CHECK-NEXT:     [[A:%[^ ]+]] = conv.fused
// CHECK:          [[B:%[^ ]+]] = conv.fused [[A]], {{.*}} extras(
// CHECK:          conv.yield [[B]] : tensor<1x4x4xf32>
// CHECK-NEXT:   } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>, tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
// CHECK-NEXT:   %q = mlx.primitive "Sort"(%b)
// CHECK-NEXT:   %c = conv.stretch(%q, %w) {
// CHECK:        func.return %c, %b

// -----

// Two towers, one written behind the other: level by level, so two stretches, not three.
func.func @forward(%x: tensor<1x4x4xf32>, %w: tensor<4x1x4xf32>) -> (tensor<1x4x4xf32>, tensor<1x4x4xf32>) {
  %a = conv.fused %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %p = mlx.primitive "Sort"(%a) [1 : i64] : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %b = conv.fused %p, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %c = conv.fused %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    %n = arith.negf %sum : f32
    conv.yield %n : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  %q = mlx.primitive "Sort"(%c) [1 : i64] : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %d = conv.fused %q, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  return %b, %d : tensor<1x4x4xf32>, tensor<1x4x4xf32>
}
// CHECK:     %a, %c = conv.stretch(%x, %w) {
// CHECK:     %p = mlx.primitive "Sort"(%a)
// CHECK:     %q = mlx.primitive "Sort"(%c)
// CHECK:     %b, %d = conv.stretch(%p, %w, %q) {
// CHECK-NOT: conv.stretch

// -----

// A convolution of parameters alone is a stretch of @prepare.
func.func @prepare(%x: tensor<1x4x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<1x4x4xf32> {
  %a = conv.fused %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4xf32>, tensor<4x1x4xf32>) -> tensor<1x4x4xf32>
  return %a : tensor<1x4x4xf32>
}
// CHECK:      func.func @prepare
// CHECK-NEXT:   %a = conv.stretch(%x, %w) {

// -----

// A view goes where it is read first; a weight that a kernel makes is packed between kernels.
func.func @forward(%x: tensor<2x4x4xf32>, %w: tensor<4x1x4xf32>) -> tensor<2x4x4xf32> {
  %p = conv.pack %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> schedule <"cpu/direct.c", lanes = 16> : tensor<4x1x4xf32> -> !conv.packed<tensor<4x1x4xf32>>
  %v = conv.view %x : tensor<2x4x4xf32> -> tensor<8x4xf32>
  %a = conv.softmax %x : tensor<2x4x4xf32> -> tensor<2x4x4xf32>
  %k = conv.pack %a window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> schedule <"cpu/direct.c", lanes = 16> : tensor<2x4x4xf32> -> !conv.packed<tensor<2x4x4xf32>>
  %b = conv.fused %x, %k window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, !conv.packed<tensor<2x4x4xf32>>) -> tensor<2x4x4xf32>
  %s = mlx.primitive "Sort"(%b) [1 : i64] : (tensor<2x4x4xf32>) -> tensor<2x4x4xf32>
  %t = conv.view %s : tensor<2x4x4xf32> -> tensor<8x4xf32>
  %c = conv.elementwise over <[8, 4]> (%v, %t) {
  ^bb0(%v1: f32, %t1: f32):
    %m = arith.addf %v1, %t1 : f32
    conv.yield %m : f32
  } : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %d = conv.view %c : tensor<8x4xf32> -> tensor<2x4x4xf32>
  %y = conv.fused %d, %p window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<2x4x4xf32>, !conv.packed<tensor<4x1x4xf32>>) -> tensor<2x4x4xf32>
  return %y : tensor<2x4x4xf32>
}
// CHECK:      func.func @forward
// CHECK-NEXT:   %p = conv.pack %w
// CHECK-NEXT:   %b = conv.stretch(%x) {
// CHECK-NEXT:   ^{{.*}}:
// CHECK-NEXT:     [[A:%[^ ]+]] = conv.softmax
// CHECK-NEXT:     [[K:%[^ ]+]] = conv.pack [[A]]
// CHECK-NEXT:     conv.fused %{{[^ ]+}}, [[K]]
// CHECK:        %s = mlx.primitive "Sort"(%b)
// CHECK-NEXT:   %y = conv.stretch(%x, %s, %p) {
// CHECK-NEXT:   ^{{.*}}:
// CHECK-DAG:      conv.view
// CHECK-DAG:      conv.view
// CHECK:          conv.elementwise
// CHECK:          func.return %y

// -----

// Not where the backend packs by itself, nor in half types, which are read as float32.
func.func @forward(%x: tensor<2x4x4xf16>) -> tensor<2x4x4xf16> {
  %a = conv.softmax %x : tensor<2x4x4xf16> -> tensor<2x4x4xf16>
  %k = conv.pack %a window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> schedule <"cpu/direct.c", lanes = 16> : tensor<2x4x4xf16> -> !conv.packed<tensor<2x4x4xf16>>
  %b = conv.fused %x, %k window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> {
  ^bb0(%sum: f32):
    %h = arith.truncf %sum : f32 to f16
    conv.yield %h : f16
  } : (tensor<2x4x4xf16>, !conv.packed<tensor<2x4x4xf16>>) -> tensor<2x4x4xf16>
  return %b : tensor<2x4x4xf16>
}
// CHECK:      %a = conv.stretch(%x)
// CHECK:      %k = conv.pack %a
// CHECK-NEXT: %b = conv.stretch(%x, %k)
