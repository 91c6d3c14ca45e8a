// RUN: convjit-opt %s | filecheck %s
// RUN: convjit-opt --print-op-generic %s | filecheck %s --check-prefix GENERIC

// Every op, type and attribute of both dialects, in the custom and in the generic syntax.
func.func @forward(%x: tensor<1x8x8x3xf32>, %w: tensor<16x3x3x3xf32>, %b: tensor<16xf16>, %r: tensor<1x1x4x16xf32>) -> tensor<1x4x4x16xf32> {
  %zero = mlx.constant -0.0 : f64 : tensor<f32>
  %nan = mlx.constant 0x7ff8000000000000 : f64 : tensor<f16>
  %count = mlx.constant -3 : i64 : tensor<i32>
  %yes = mlx.constant true : tensor<i1>
  %p, %q = mlx.primitive "Anything"(%x, %zero) [array<i64: 0, -1>, [], [true, array<i64: 2>], 0.5 : f64, "text", bf16, unit, 7 : i64] : (tensor<1x8x8x3xf32>, tensor<f32>) -> (tensor<1x8x8x3xf32>, tensor<2x0xui8>)
  %y = conv.general %p, %w window <strides = [2, 2], pad = [1, 0] : [2, -1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "stem" : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x5x3x16xf32>
  %u = conv.general %p, %w window <strides = [1, 1], pad = [1, 1] : [1, 1], dilation = [2, 2], input_dilation = [2, 2], groups = 1, flip> : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x13x13x16xf32>
  %k = conv.pack %w window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> schedule <"cpu/direct.c", split = "rows", width = 14> : tensor<16x3x3x3xf32> -> !conv.packed<tensor<16x3x3x3xf32>>
  %z = conv.stretch(%x, %k, %b, %r) {
  ^bb0(%x1: tensor<1x8x8x3xf32>, %k1: !conv.packed<tensor<16x3x3x3xf32>>, %b1: tensor<16xf16>, %r1: tensor<1x1x4x16xf32>):
    %s, %h = conv.fused %x1, %k1 window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "stem" schedule <"cpu/direct.c"> extras(%b1, %r1 : tensor<16xf16>, tensor<1x1x4x16xf32>) {
    ^bb0(%sum: f32, %bias: f16, %res: f32):
      %wide = arith.extf %bias : f16 to f32
      %t = arith.addf %sum, %wide : f32
      %v = arith.mulf %t, %res : f32
      %n = arith.truncf %v : f32 to bf16
      conv.yield %t, %n : f32, bf16
    } : (tensor<1x8x8x3xf32>, !conv.packed<tensor<16x3x3x3xf32>>) -> tensor<1x4x4x16xf32>, tensor<1x4x4x16xbf16>
    conv.yield %s : tensor<1x4x4x16xf32>
  } : (tensor<1x8x8x3xf32>, !conv.packed<tensor<16x3x3x3xf32>>, tensor<16xf16>, tensor<1x1x4x16xf32>) -> tensor<1x4x4x16xf32>
  %e = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } {fused = ""} : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x6x6x16xf32>
  %m = conv.pool "max" of %e kernel <[6, 6]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 16> layer "pool" schedule <"cpu/pool.c", lanes = 16> : tensor<1x6x6x16xf32> -> tensor<1x16xf32>
  %g = conv.pool_gradient %e, %m, %m kernel <[6, 6]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 16> layer "pool.grad" schedule <"cpu/pool_gradient.c", lanes = 16> : tensor<1x6x6x16xf32>, tensor<1x16xf32>, tensor<1x16xf32> -> tensor<1x6x6x16xf32>
  %n = conv.norm %e as <[1, 36, 4, 4]> eps 1.000000e-05 : f64 centered layer "norm" schedule <"cpu/norm.c", lanes = 16> extras(%b : tensor<16xf16>) {
  ^bb0(%normalised: f32, %b1: f16):
    conv.yield %b1 : f16
  } : tensor<1x6x6x16xf32> -> tensor<1x6x6x16xf16>
  %soft = conv.softmax %e layer "softmax" schedule <"cpu/softmax.c", lanes = 16> : tensor<1x6x6x16xf32> -> tensor<1x6x6x16xf32>
  %re = conv.rearrange(%e) parts <[36, 8] from 8 [16, 1] to 0 [8, 1]> layer "rearrange" schedule <"cpu/rearrange.c", unit = 32768> : (tensor<1x6x6x16xf32>) -> tensor<1x6x6x8xf32>
  %v = conv.view %re : tensor<1x6x6x8xf32> -> tensor<36x8xf32>
  %l = conv.norm %e as <[36, 1, 1, 16]> eps 0.000000e+00 : f64 {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x6x6x16xf32> -> tensor<1x6x6x16xf32>
  return %z : tensor<1x4x4x16xf32>
}

// CHECK:      %zero = mlx.constant -0.000000e+00 : f64 : tensor<f32>
// CHECK-NEXT: %nan = mlx.constant 0x7ff8000000000000 : f64 : tensor<f16>
// CHECK-NEXT: %count = mlx.constant -3 : i64 : tensor<i32>
// CHECK-NEXT: %yes = mlx.constant true : tensor<i1>
// CHECK-NEXT: %p, %q = mlx.primitive "Anything"(%x, %zero) [array<i64: 0, -1>, [], [true, array<i64: 2>], 5.000000e-01 : f64, "text", bf16, unit, 7 : i64] : (tensor<1x8x8x3xf32>, tensor<f32>) -> (tensor<1x8x8x3xf32>, tensor<2x0xui8>)
// CHECK-NEXT: %y = conv.general %p, %w window <strides = [2, 2], pad = [1, 0] : [2, -1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "stem" : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x5x3x16xf32>
// CHECK-NEXT: %u = conv.general %p, %w window <strides = [1, 1], pad = [1, 1] : [1, 1], dilation = [2, 2], input_dilation = [2, 2], groups = 1, flip> : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x13x13x16xf32>
// CHECK-NEXT: %k = conv.pack %w window <strides = [2, 2], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> schedule <"cpu/direct.c", split = "rows", width = 14> : tensor<16x3x3x3xf32> -> !conv.packed<tensor<16x3x3x3xf32>>
// CHECK-NEXT: %z = conv.stretch(%x, %k, %b, %r) {
// CHECK-NEXT: ^bb0(%x1: tensor<1x8x8x3xf32>, %k1: !conv.packed<tensor<16x3x3x3xf32>>, %b1: tensor<16xf16>, %r1: tensor<1x1x4x16xf32>):
// CHECK-NEXT:   %s, %h = conv.fused %x1, %k1 window <{{.*}}> layer "stem" schedule <"cpu/direct.c"> extras(%b1, %r1 : tensor<16xf16>, tensor<1x1x4x16xf32>) {
// CHECK-NEXT:   ^bb0(%sum: f32, %bias: f16, %res: f32):
// CHECK-NEXT:     %wide = arith.extf %bias : f16 to f32
// CHECK-NEXT:     %t = arith.addf %sum, %wide : f32
// CHECK-NEXT:     %v = arith.mulf %t, %res : f32
// CHECK-NEXT:     %n = arith.truncf %v : f32 to bf16
// CHECK-NEXT:     conv.yield %t, %n : f32, bf16
// CHECK-NEXT:   } : (tensor<1x8x8x3xf32>, !conv.packed<tensor<16x3x3x3xf32>>) -> tensor<1x4x4x16xf32>, tensor<1x4x4x16xbf16>
// CHECK-NEXT:   conv.yield %s : tensor<1x4x4x16xf32>
// CHECK-NEXT: } : (tensor<1x8x8x3xf32>, !conv.packed<tensor<16x3x3x3xf32>>, tensor<16xf16>, tensor<1x1x4x16xf32>) -> tensor<1x4x4x16xf32>
// CHECK-NEXT: %e = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
// CHECK-NEXT: ^bb0(%sum: f32):
// CHECK-NEXT:   conv.yield %sum : f32
// CHECK-NEXT: } {fused = ""} : (tensor<1x8x8x3xf32>, tensor<16x3x3x3xf32>) -> tensor<1x6x6x16xf32>
// CHECK-NEXT: %m = conv.pool "max" of %e kernel <[6, 6]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 16> layer "pool" schedule <"cpu/pool.c", lanes = 16> : tensor<1x6x6x16xf32> -> tensor<1x16xf32>
// CHECK-NEXT: %g = conv.pool_gradient %e, %m, %m kernel <[6, 6]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 16> layer "pool.grad" schedule <"cpu/pool_gradient.c", lanes = 16> : tensor<1x6x6x16xf32>, tensor<1x16xf32>, tensor<1x16xf32> -> tensor<1x6x6x16xf32>
// CHECK-NEXT: %n = conv.norm %e as <[1, 36, 4, 4]> eps 1.000000e-05 : f64 centered layer "norm" schedule <"cpu/norm.c", lanes = 16> extras(%b : tensor<16xf16>) {
// CHECK-NEXT: ^{{.*}}(%normalised: f32, {{%[^ ]+}}: f16):
// CHECK:      } : tensor<1x6x6x16xf32> -> tensor<1x6x6x16xf16>
// CHECK-NEXT: %soft = conv.softmax %e layer "softmax" schedule <"cpu/softmax.c", lanes = 16> : tensor<1x6x6x16xf32> -> tensor<1x6x6x16xf32>
// CHECK-NEXT: %re = conv.rearrange(%e) parts <[36, 8] from 8 [16, 1] to 0 [8, 1]> layer "rearrange" schedule <"cpu/rearrange.c", unit = 32768> : (tensor<1x6x6x16xf32>) -> tensor<1x6x6x8xf32>
// CHECK-NEXT: %v = conv.view %re : tensor<1x6x6x8xf32> -> tensor<36x8xf32>
// CHECK-NEXT: %l = conv.norm %e as <[36, 1, 1, 16]> eps 0.000000e+00 : f64 {

// GENERIC: "mlx.constant"() <{value = -0.000000e+00 : f64}> : () -> tensor<f32>
// GENERIC: "mlx.primitive"(%x, %zero) <{primitive = "Anything", arguments = [array<i64: 0, -1>, [], [true, array<i64: 2>], 5.000000e-01 : f64, "text", bf16, unit, 7 : i64]}>
// GENERIC: "conv.general"(%p, %w) <{window = #conv.window<strides = [2, 2], pad = [1, 0] : [2, -1], dilation = [1, 1], input_dilation = [1, 1], groups = 1>, layer = "stem"}>
// GENERIC: "conv.general"(%p, %w) <{window = #conv.window<{{.*}}, groups = 1, flip>}>
// GENERIC: "conv.pack"(%w) <{window = #conv.window<{{.*}}>, schedule = #conv.schedule<"cpu/direct.c", split = "rows", width = 14>}> : (tensor<16x3x3x3xf32>) -> !conv.packed<tensor<16x3x3x3xf32>>
// GENERIC: "conv.stretch"(%x, %k, %b, %r)
// GENERIC: "conv.fused"(%x1, %k1, %b1, %r1) <{window = #conv.window<{{.*}}>, layer = "stem", schedule = #conv.schedule<"cpu/direct.c">}> ({
// GENERIC: "conv.yield"(%t, %n) : (f32, bf16) -> ()
// GENERIC: "conv.pool"(%e) <{kind = "max", kernel = #conv.numbers<[6, 6]>, window = #conv.window<{{.*}}>, layer = "pool", schedule = #conv.schedule<"cpu/pool.c", lanes = 16>}> : (tensor<1x6x6x16xf32>) -> tensor<1x16xf32>
// GENERIC: "conv.pool_gradient"(%e, %m, %m) <{kernel = #conv.numbers<[6, 6]>, window = #conv.window<{{.*}}>, layer = "pool.grad", schedule = #conv.schedule<"cpu/pool_gradient.c", lanes = 16>}> : (tensor<1x6x6x16xf32>, tensor<1x16xf32>, tensor<1x16xf32>) -> tensor<1x6x6x16xf32>
// GENERIC: "conv.norm"(%e, %b) <{view = #conv.numbers<[1, 36, 4, 4]>, eps = 1.000000e-05 : f64, centered, layer = "norm", schedule = #conv.schedule<"cpu/norm.c", lanes = 16>{{.*}}}> ({
