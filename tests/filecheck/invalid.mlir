// RUN: convjit-opt %s --verify-diagnostics --split-input-file | filecheck %s

// Every error of the verifiers; those of the window come from convjit.geometry and hold the numbers that disagree.

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x8x8x6xf32>
  return
}
// CHECK: expected result shape [1, 6, 6, 6], got [1, 8, 8, 6]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x3xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x3xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: input has 4 channels but weight (6, 3, 3, 3) expects 3

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x1xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : (tensor<1x8x8x4xf32>, tensor<6x3x3x1xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: weight (6, 3, 3, 1) has 6 output channels, not a multiple of 4 groups

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 2> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: input has 4 channels but weight (6, 3, 3, 4) expects 8 (2 groups of 4)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 0> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: groups must be at least 1, got 0

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 0], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: strides (1, 0), kernel dilation (1, 1) and input dilation (1, 1) must all be at least 1

// -----

func.func @forward(%x: tensor<1x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: a 2D convolution takes an input and a weight of rank 4, got shapes (1, 8, 4) and (6, 3, 3, 4)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: expected one number for each of 2 spatial axes in every list of Window(strides=(1, 1), pad_lo=(0,), pad_hi=(0, 0),

// -----

func.func @forward(%x: tensor<1x2x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x2x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: kernel (3, 3) with dilation (1, 1) is larger than the padded input (2, 8)

// -----

func.func @forward(%x: tensor<1x8x8x0xf32>, %w: tensor<6x3x3x0xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x0xf32>, tensor<6x3x3x0xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: input (1, 8, 8, 0) and weight (6, 3, 3, 0) must have at least one channel

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<0x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<0x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: weight (0, 3, 3, 4) has no output channels

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x0x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x0x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: weight (6, 0, 3, 4) has an empty kernel

// -----

// The same holds for a fused convolution.
func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x8x8x6xf32>
  return
}
// CHECK: expected result shape [1, 6, 6, 6], got [1, 8, 8, 6]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> extras(%b : tensor<6xf16>) {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: expected block arguments of the types (f32, f16)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f16):
    conv.yield %sum : f16
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf16>
  return
}
// CHECK: expected block arguments of the types (f32)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> extras(%b : tensor<6xf16>) {
  ^bb0(%sum: f32, %e: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: expected block arguments of the types (f32, f16)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>, %c: tensor<4xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> extras(%c : tensor<4xf32>) {
  ^bb0(%sum: f32, %e: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: an extra of shape [4] does not broadcast to [1, 6, 6, 6]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>, %c: tensor<1x1x1x1x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> extras(%c : tensor<1x1x1x1x6xf32>) {
  ^bb0(%sum: f32, %e: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: an extra of shape [1, 1, 1, 1, 6] does not broadcast to [1, 6, 6, 6]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf16>
  return
}
// CHECK: expected a conv.yield of (f16)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f32):
    conv.yield %sum, %sum : f32, f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: expected a conv.yield of (f32)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.stretch(%x) {
  ^bb0(%a: tensor<1x8x8x3xf32>):
    conv.yield %a : tensor<1x8x8x3xf32>
  } : (tensor<1x8x8x4xf32>) -> tensor<1x8x8x3xf32>
  return
}
// CHECK: expected block arguments of the types (tensor<1x8x8x4xf32>)

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.stretch(%x) {
  ^bb0(%a: tensor<1x8x8x4xf32>):
    conv.yield %a, %a : tensor<1x8x8x4xf32>, tensor<1x8x8x4xf32>
  } : (tensor<1x8x8x4xf32>) -> tensor<1x8x8x4xf32>
  return
}
// CHECK: expected a conv.yield of (tensor<1x8x8x4xf32>)

// -----

// A yield belongs to an epilogue or a stretch.
func.func @forward(%x: tensor<1x8x8x4xf32>) {
  conv.yield %x : tensor<1x8x8x4xf32>
}
// CHECK: 'conv.yield' expects parent op to be one of 'conv.fused', 'conv.elementwise', 'conv.norm', 'conv.stretch'

// -----

// An epilogue sees nothing but its arguments.
func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>, %b: tensor<6xf16>, %r: tensor<1x6x6x6xf32>, %o: f32) {
  %y = conv.fused %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> {
  ^bb0(%sum: f32):
    %s = arith.addf %sum, %o : f32
    conv.yield %s : f32
  } : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: Operation using value defined out of its IsolatedFromAbove parent

// -----

func.func @forward() {
  %c = mlx.constant 1.0 : f64 : tensor<2xf32>
  return
}
// CHECK: an mlx.constant is a scalar

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf16>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf16>) -> tensor<1x6x6x6xf32>
  return
}
// CHECK: the input has elements of type f32, the weight of type f16

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %w: tensor<6x3x3x4xf32>) {
  %y = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x6x6x6xf16>
  return
}
// CHECK: the input has elements of type f32, the result of type f16

// -----

func.func @forward(%w: tensor<6x3x3x4xf32>) {
  %p = conv.pack %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> schedule <"cpu/direct.c"> : tensor<6x3x3x4xf32> -> !conv.packed<tensor<6x3x3x3xf32>>
  return
}
// CHECK: a packed tensor<6x3x3x4xf32> is not a !conv.packed<tensor<6x3x3x3xf32>>

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %dy: tensor<1x6x6x6xf16>) {
  %dw = conv.weight_gradient %x, %dy window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<1x8x8x4xf32>, tensor<1x6x6x6xf16>) -> tensor<6x3x3x4xf32>
  return
}
// CHECK: the input has elements of type f32, the gradient of the output of type f16

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %dy: tensor<1x17x17x6xf32>) {
  %dw = conv.weight_gradient %x, %dy window <strides = [1, 1], pad = [2, 2] : [2, 2], dilation = [1, 1], input_dilation = [2, 2], groups = 1> : (tensor<1x8x8x4xf32>, tensor<1x17x17x6xf32>) -> tensor<6x3x3x4xf32>
  return
}
// CHECK: a weight gradient's window is neither transposed nor flipped

// -----

func.func @forward(%x: tensor<5x4xf32>, %w: tensor<6x3xf32>) {
  %y = conv.general %x, %w window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> : (tensor<5x4xf32>, tensor<6x3xf32>) -> tensor<5x6xf32>
  return
}
// CHECK: input has 4 channels but weight (6, 1, 3) expects 3

// -----

func.func @forward(%x: tensor<5x4xf32>, %w: tensor<6x1x4xf32>) {
  %y = conv.general %x, %w window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> : (tensor<5x4xf32>, tensor<6x1x4xf32>) -> tensor<5x6xf32>
  return
}
// CHECK: a product takes an input of rank 2 to 5 and a matrix, or an input of rank 3 and a matrix for each image, got shapes (5, 4) and (6, 1, 4)

// -----

func.func @forward(%x: tensor<2x5x4xf32>, %w: tensor<6x4xf32>) {
  %y = conv.general %x, %w window <strides = [], pad = [] : [], dilation = [], input_dilation = [], groups = 1> : (tensor<2x5x4xf32>, tensor<6x4xf32>) -> tensor<10x6xf32>
  return
}
// CHECK: expected result shape [2, 5, 6], got [10, 6]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.pool "min" of %x kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32> -> tensor<1x6x6x4xf32>
  return
}
// CHECK: a pool is one of ('max', 'sum'), not 'min'

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.pool "max" of %x kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : tensor<1x8x8x4xf32> -> tensor<1x6x6x4xf32>
  return
}
// CHECK: input has 4 channels but weight (4, 3, 3, 1) expects 1

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.pool "max" of %x kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [2, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32> -> tensor<1x4x6x4xf32>
  return
}
// CHECK: a pool's window is neither dilated nor flipped

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.pool "max" of %x kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32> -> tensor<1x6x4xf32>
  return
}
// CHECK: expected result shape [1, 6, 6, 4], got [1, 6, 4]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>) {
  %y = conv.pool "max" of %x kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32> -> tensor<1x6x6x4xf16>
  return
}
// CHECK: the input has elements of type f32, the result of type f16

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %y: tensor<1x6x6x4xf32>, %d: tensor<1x6x4xf32>) {
  %g = conv.pool_gradient %x, %y, %d kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32>, tensor<1x6x6x4xf32>, tensor<1x6x4xf32> -> tensor<1x8x8x4xf32>
  return
}
// CHECK: expected gradient shape [1, 6, 6, 4], got [1, 6, 4]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %y: tensor<1x6x6x4xf32>) {
  %g = conv.pool_gradient %x, %y, %y kernel <[3, 3]> window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 4> : tensor<1x8x8x4xf32>, tensor<1x6x6x4xf32>, tensor<1x6x6x4xf32> -> tensor<1x8x8x4xf16>
  return
}
// CHECK: the gradient of tensor<1x8x8x4xf32> cannot be tensor<1x8x8x4xf16>

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %b: tensor<3xf32>) {
  %y = conv.norm %x as <[1, 64, 4, 2]> eps 1.0e-05 : f64 centered {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x8x8x4xf32> -> tensor<1x8x8x4xf32>
  return
}
// CHECK: shape [1, 8, 8, 4] cannot be seen as [1, 64, 4, 2]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %b: tensor<3xf32>) {
  %y = conv.norm %x as <[1, 64, 4, 1]> eps 1.0e-05 : f64 {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x8x8x4xf32> -> tensor<1x8x8x4xf32>
  return
}
// CHECK: what is not centered has one pixel and one group

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %b: tensor<3xf32>) {
  %y = conv.norm %x as <[1, 64, 4, 1]> eps 1.0e-05 : f64 centered {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x8x8x4xf32> -> tensor<1x4x8x8xf32>
  return
}
// CHECK: expected result shape [1, 8, 8, 4], got [1, 4, 8, 8]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %b: tensor<3xf32>) {
  %y = conv.norm %x as <[1, 64, 4, 1]> eps 1.0e-05 : f64 centered extras(%b : tensor<3xf32>) {
  ^bb0(%normalised: f32, %b1: f32):
    conv.yield %normalised : f32
  } : tensor<1x8x8x4xf32> -> tensor<1x8x8x4xf32>
  return
}
// CHECK: an extra of shape [3] does not broadcast to [1, 8, 8, 4]

// -----

func.func @forward(%x: tensor<1x8x8x4xf32>, %b: tensor<3xf32>) {
  %y = conv.norm %x as <[1, 64, 4, 1]> eps 1.0e-05 : f64 centered {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x8x8x4xf32> -> tensor<1x8x8x4xf16>
  return
}
// CHECK: expected a conv.yield of (f16)

// -----

func.func @forward(%x: tensor<5x4xf32>) {
  %y = conv.softmax %x : tensor<5x4xf32> -> tensor<5x4xf16>
  return
}
// CHECK: a softmax of tensor<5x4xf32> cannot be tensor<5x4xf16>

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%x) parts <[5] from 0 [4, 1] to 0 [4, 1]> : (tensor<5x4xf32>) -> tensor<5x4xf32>
  return
}
// CHECK: expected a stride for each extent of

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%x, %x) parts <[5, 4] from 0 [4, 1] to 0 [4, 1]> : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
  return
}
// CHECK: expected a part for each of 2 inputs, got 1

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%x) parts <[5, 3] from 0 [4, 1] to 0 [4, 1]> : (tensor<5x4xf32>) -> tensor<5x4xf32>
  return
}
// CHECK: the parts are not the 20 elements of the result

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%h) parts <[5, 4] from 0 [4, 1] to 0 [4, 1]> : (tensor<5x4xf16>) -> tensor<5x4xf32>
  return
}
// CHECK: a part of tensor<5x4xf16> cannot be one of tensor<5x4xf32>

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%x) parts <[5, 4] from 0 [-4, 1] to 0 [4, 1]> : (tensor<5x4xf32>) -> tensor<5x4xf32>
  return
}
// CHECK: a part begins before its array, or ends behind it

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.rearrange(%x) parts <[5, 4] from 1 [4, 1] to 0 [4, 1]> : (tensor<5x4xf32>) -> tensor<5x4xf32>
  return
}
// CHECK: a part begins before its array, or ends behind it

// -----

func.func @forward(%x: tensor<5x4xf32>, %h: tensor<5x4xf16>) {
  %y = conv.view %x : tensor<5x4xf32> -> tensor<5x5xf32>
  return
}
// CHECK: tensor<5x5xf32> does not have the elements of tensor<5x4xf32>
