// RUN: convjit-opt -p 'choose-schedule{backend=cpu}' %s | filecheck %s

// Each kernel names its template; a weight that two kernels read in one order is packed once.
func.func @forward(%x: tensor<1x4x4x8xf32>, %w: tensor<8x1x1x8xf32>) -> tensor<1x4x4x8xf32> {
  %a = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "a" {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4x8xf32>, tensor<8x1x1x8xf32>) -> tensor<1x4x4x8xf32>
  %b = conv.fused %a, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "b" {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4x8xf32>, tensor<8x1x1x8xf32>) -> tensor<1x4x4x8xf32>
  return %b : tensor<1x4x4x8xf32>
}
// CHECK:      [[P:%[^ ]+]] = conv.pack %w window <{{.*}}> schedule <"cpu/{{.*}}> : tensor<8x1x1x8xf32> -> !conv.packed<tensor<8x1x1x8xf32>>
// CHECK-NEXT: %a = conv.fused %x, [[P]] window <{{.*}}> layer "a" schedule <"cpu/{{.*}}> {
// CHECK-NOT:  = conv.pack
// CHECK:      %b = conv.fused %a, [[P]] window <{{.*}}> layer "b" schedule <"cpu/{{.*}}> {

// With another window the same weight is packed again: the order in which a kernel reads it may depend on both.
func.func @two_windows(%x: tensor<1x4x4x8xf32>, %w: tensor<8x2x2x8xf32>) -> (tensor<1x3x3x8xf32>, tensor<1x3x3x8xf32>) {
  %a = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "a" {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4x8xf32>, tensor<8x2x2x8xf32>) -> tensor<1x3x3x8xf32>
  %b = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1, flip> layer "b" {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x4x4x8xf32>, tensor<8x2x2x8xf32>) -> tensor<1x3x3x8xf32>
  return %a, %b : tensor<1x3x3x8xf32>, tensor<1x3x3x8xf32>
}
// CHECK-LABEL: @two_windows
// CHECK-NEXT: [[P:%[^ ]+]] = conv.pack %w window <{{.*}} groups = 1> schedule
// CHECK-NEXT: %a = conv.fused %x, [[P]] window
// CHECK:      [[Q:%[^ ]+]] = conv.pack %w window <{{.*}} groups = 1, flip> schedule
// CHECK-NEXT: %b = conv.fused %x, [[Q]] window
