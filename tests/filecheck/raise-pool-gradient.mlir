// RUN: convjit-opt -p raise-pool,raise-pool-gradient --split-input-file %s | filecheck %s

// Windows that overlap: what their elements get is added up, in an array with the padding.
func.func @forward(%x: tensor<2x8x8x4xf32>, %w: tensor<4x1x1x4xf32>, %dy: tensor<2x4x4x4xf32>) -> tensor<2x8x8x4xf32> {
  %zero = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %nothing = mlx.constant 0xfff0000000000000 : f64 : tensor<f32>
  %zeros = mlx.primitive "Broadcast"(%zero) [array<i64: 800>] : (tensor<f32>) -> tensor<800xf32>
  %full = mlx.primitive "Full"(%zeros) [] : (tensor<800xf32>) -> tensor<800xf32>
  %numbers = mlx.primitive "Arange"() [0.000000e+00 : f64, 8.000000e+02 : f64, 1.000000e+00 : f64] : () -> tensor<800xi32>
  %numbered = mlx.primitive "AsStrided"(%numbers) [array<i64: 2, 4, 4, 3, 3, 4>, array<i64: 400, 80, 8, 40, 4, 1>, 0 : i64] : (tensor<800xi32>) -> tensor<2x4x4x3x3x4xi32>
  %places = mlx.primitive "Reshape"(%numbered) [array<i64: 1152>] : (tensor<2x4x4x3x3x4xi32>) -> tensor<1152xi32>
  %wide = mlx.primitive "ExpandDims"(%dy) [array<i64: 3, 4>] : (tensor<2x4x4x4xf32>) -> tensor<2x4x4x1x1x4xf32>
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x8x8x4xf32>, tensor<4x1x1x4xf32>) -> tensor<2x8x8x4xf32>
  %p = mlx.primitive "Pad"(%c, %nothing) [array<i64: 0, 1, 2, 3>, array<i64: 0, 1, 1, 0>, array<i64: 0, 1, 1, 0>] : (tensor<2x8x8x4xf32>, tensor<f32>) -> tensor<2x10x10x4xf32>
  %f = mlx.primitive "Flatten"(%p) [0 : i64, 3 : i64] : (tensor<2x10x10x4xf32>) -> tensor<800xf32>
  %v = mlx.primitive "AsStrided"(%f) [array<i64: 2, 4, 4, 3, 3, 4>, array<i64: 400, 80, 8, 40, 4, 1>, 0 : i64] : (tensor<800xf32>) -> tensor<2x4x4x3x3x4xf32>
  %y = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 3, 4>] : (tensor<2x4x4x3x3x4xf32>) -> tensor<2x4x4x1x1x4xf32>
  %yb = mlx.primitive "Broadcast"(%y) [array<i64: 2, 4, 4, 3, 3, 4>] : (tensor<2x4x4x1x1x4xf32>) -> tensor<2x4x4x3x3x4xf32>
  %e = mlx.primitive "Equal"(%v, %yb) [false] : (tensor<2x4x4x3x3x4xf32>, tensor<2x4x4x3x3x4xf32>) -> tensor<2x4x4x3x3x4xi1>
  %n = mlx.primitive "Reduce"(%e) [2 : i64, array<i64: 3, 4>] : (tensor<2x4x4x3x3x4xi1>) -> tensor<2x4x4x1x1x4xi32>
  %ties = mlx.primitive "AsType"(%n) [f32] : (tensor<2x4x4x1x1x4xi32>) -> tensor<2x4x4x1x1x4xf32>
  %q = mlx.primitive "Divide"(%wide, %ties) [] : (tensor<2x4x4x1x1x4xf32>, tensor<2x4x4x1x1x4xf32>) -> tensor<2x4x4x1x1x4xf32>
  %qb = mlx.primitive "Broadcast"(%q) [array<i64: 2, 4, 4, 3, 3, 4>] : (tensor<2x4x4x1x1x4xf32>) -> tensor<2x4x4x3x3x4xf32>
  %mask = mlx.primitive "AsType"(%e) [f32] : (tensor<2x4x4x3x3x4xi1>) -> tensor<2x4x4x3x3x4xf32>
  %shares = mlx.primitive "Multiply"(%qb, %mask) [] : (tensor<2x4x4x3x3x4xf32>, tensor<2x4x4x3x3x4xf32>) -> tensor<2x4x4x3x3x4xf32>
  %updates = mlx.primitive "Reshape"(%shares) [array<i64: 1152, 1>] : (tensor<2x4x4x3x3x4xf32>) -> tensor<1152x1xf32>
  %s = mlx.primitive "Scatter"(%full, %places, %updates) [2 : i64, array<i64: 0>] : (tensor<800xf32>, tensor<1152xi32>, tensor<1152x1xf32>) -> tensor<800xf32>
  %u = mlx.primitive "Unflatten"(%s) [0 : i64, array<i64: 2, 10, 10, 4>] : (tensor<800xf32>) -> tensor<2x10x10x4xf32>
  %dx = mlx.primitive "Slice"(%u) [array<i64: 0, 1, 1, 0>, array<i64: 2, 9, 9, 4>, array<i64: 1, 1, 1, 1>] : (tensor<2x10x10x4xf32>) -> tensor<2x8x8x4xf32>
  return %dx : tensor<2x8x8x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %c = conv.general %x, %w
// CHECK-NEXT:    %y = conv.pool "max" of %c kernel <[3, 3]> window <strides = [2, 2], pad = [1, 1] : [1, 1], {{.*}}> layer "pool" : tensor<2x8x8x4xf32> -> tensor<2x4x4x1x1x4xf32>
// CHECK-NEXT:    %dx = conv.pool_gradient %c, %y, %dy kernel <[3, 3]> window <strides = [2, 2], pad = [1, 1] : [1, 1], {{.*}}> layer "pool.grad" : tensor<2x8x8x4xf32>, tensor<2x4x4x1x1x4xf32>, tensor<2x4x4x4xf32> -> tensor<2x8x8x4xf32>
// CHECK-NEXT:    func.return %dx

// -----

// Windows side by side; the pool's result is a result of the function, too. Who reads the pool's result without the axes
// of its windows gets it so, as the gradient does.
func.func @forward(%x: tensor<2x8x4xf16>, %w: tensor<4x1x4xf16>, %dy: tensor<2x4x1x4xf16>) -> (tensor<2x4x4xf16>, tensor<2x8x4xf16>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x8x4xf16>, tensor<4x1x4xf16>) -> tensor<2x8x4xf16>
  %s = mlx.primitive "Reshape"(%c) [array<i64: 2, 4, 2, 4>] : (tensor<2x8x4xf16>) -> tensor<2x4x2x4xf16>
  %v = mlx.primitive "Transpose"(%s) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf16>) -> tensor<2x4x2x4xf16>
  %r = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 2>] : (tensor<2x4x2x4xf16>) -> tensor<2x4x1x4xf16>
  %y = mlx.primitive "Squeeze"(%r) [array<i64: 2>] : (tensor<2x4x1x4xf16>) -> tensor<2x4x4xf16>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 4, 2, 4>] : (tensor<2x4x1x4xf16>) -> tensor<2x4x2x4xf16>
  %e = mlx.primitive "Equal"(%v, %rb) [false] : (tensor<2x4x2x4xf16>, tensor<2x4x2x4xf16>) -> tensor<2x4x2x4xi1>
  %n = mlx.primitive "Reduce"(%e) [2 : i64, array<i64: 2>] : (tensor<2x4x2x4xi1>) -> tensor<2x4x1x4xi32>
  %ties = mlx.primitive "AsType"(%n) [f16] : (tensor<2x4x1x4xi32>) -> tensor<2x4x1x4xf16>
  %q = mlx.primitive "Divide"(%dy, %ties) [] : (tensor<2x4x1x4xf16>, tensor<2x4x1x4xf16>) -> tensor<2x4x1x4xf16>
  %qb = mlx.primitive "Broadcast"(%q) [array<i64: 2, 4, 2, 4>] : (tensor<2x4x1x4xf16>) -> tensor<2x4x2x4xf16>
  %mask = mlx.primitive "AsType"(%e) [f16] : (tensor<2x4x2x4xi1>) -> tensor<2x4x2x4xf16>
  %shares = mlx.primitive "Multiply"(%qb, %mask) [] : (tensor<2x4x2x4xf16>, tensor<2x4x2x4xf16>) -> tensor<2x4x2x4xf16>
  %t = mlx.primitive "Transpose"(%shares) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf16>) -> tensor<2x4x2x4xf16>
  %dx = mlx.primitive "Reshape"(%t) [array<i64: 2, 8, 4>] : (tensor<2x4x2x4xf16>) -> tensor<2x8x4xf16>
  return %y, %dx : tensor<2x4x4xf16>, tensor<2x8x4xf16>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %y = conv.pool "max" of %c kernel <[2]> {{.*}} -> tensor<2x4x4xf16>
// CHECK-NEXT:    %dx = conv.pool_gradient %c, %y, %dy kernel <[2]> window <strides = [2], pad = [0] : [0], {{.*}}> layer "pool.grad" : tensor<2x8x4xf16>, tensor<2x4x4xf16>, tensor<2x4x1x4xf16> -> tensor<2x8x4xf16>
// CHECK-NEXT:    func.return %y, %dx

// -----

// The pool's result may come from elsewhere: the gradient asks which elements are equal to it. What stays: parts of sums
// over something else than windows.
func.func @forward(%x: tensor<2x8x4xf32>, %w: tensor<4x1x4xf32>, %y: tensor<2x4x1x4xf32>, %z: tensor<2x1x2x4xf32>, %dy: tensor<2x4x1x4xf32>, %dz: tensor<2x1x2x4xf32>) -> (tensor<2x8x4xf32>, tensor<2x8x4xf32>) {
  %c = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<2x8x4xf32>, tensor<4x1x4xf32>) -> tensor<2x8x4xf32>
  %s = mlx.primitive "Reshape"(%c) [array<i64: 2, 4, 2, 4>] : (tensor<2x8x4xf32>) -> tensor<2x4x2x4xf32>
  %v = mlx.primitive "Transpose"(%s) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
  %yb = mlx.primitive "Broadcast"(%y) [array<i64: 2, 4, 2, 4>] : (tensor<2x4x1x4xf32>) -> tensor<2x4x2x4xf32>
  %e = mlx.primitive "Equal"(%v, %yb) [false] : (tensor<2x4x2x4xf32>, tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xi1>
  %n = mlx.primitive "Reduce"(%e) [2 : i64, array<i64: 2>] : (tensor<2x4x2x4xi1>) -> tensor<2x4x1x4xi32>
  %ties = mlx.primitive "AsType"(%n) [f32] : (tensor<2x4x1x4xi32>) -> tensor<2x4x1x4xf32>
  %q = mlx.primitive "Divide"(%dy, %ties) [] : (tensor<2x4x1x4xf32>, tensor<2x4x1x4xf32>) -> tensor<2x4x1x4xf32>
  %qb = mlx.primitive "Broadcast"(%q) [array<i64: 2, 4, 2, 4>] : (tensor<2x4x1x4xf32>) -> tensor<2x4x2x4xf32>
  %mask = mlx.primitive "AsType"(%e) [f32] : (tensor<2x4x2x4xi1>) -> tensor<2x4x2x4xf32>
  %shares = mlx.primitive "Multiply"(%qb, %mask) [] : (tensor<2x4x2x4xf32>, tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
  %t = mlx.primitive "Transpose"(%shares) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
  %dx = mlx.primitive "Reshape"(%t) [array<i64: 2, 8, 4>] : (tensor<2x4x2x4xf32>) -> tensor<2x8x4xf32>
  %zb = mlx.primitive "Broadcast"(%z) [array<i64: 2, 4, 2, 4>] : (tensor<2x1x2x4xf32>) -> tensor<2x4x2x4xf32>
  %ez = mlx.primitive "Equal"(%v, %zb) [false] : (tensor<2x4x2x4xf32>, tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xi1>
  %nz = mlx.primitive "Reduce"(%ez) [2 : i64, array<i64: 1>] : (tensor<2x4x2x4xi1>) -> tensor<2x1x2x4xi32>
  %tiesz = mlx.primitive "AsType"(%nz) [f32] : (tensor<2x1x2x4xi32>) -> tensor<2x1x2x4xf32>
  %qz = mlx.primitive "Divide"(%dz, %tiesz) [] : (tensor<2x1x2x4xf32>, tensor<2x1x2x4xf32>) -> tensor<2x1x2x4xf32>
  %qzb = mlx.primitive "Broadcast"(%qz) [array<i64: 2, 4, 2, 4>] : (tensor<2x1x2x4xf32>) -> tensor<2x4x2x4xf32>
  %maskz = mlx.primitive "AsType"(%ez) [f32] : (tensor<2x4x2x4xi1>) -> tensor<2x4x2x4xf32>
  %sharesz = mlx.primitive "Multiply"(%qzb, %maskz) [] : (tensor<2x4x2x4xf32>, tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
  %tz = mlx.primitive "Transpose"(%sharesz) [array<i64: 0, 1, 2, 3>] : (tensor<2x4x2x4xf32>) -> tensor<2x4x2x4xf32>
  %other = mlx.primitive "Reshape"(%tz) [array<i64: 2, 8, 4>] : (tensor<2x4x2x4xf32>) -> tensor<2x8x4xf32>
  return %dx, %other : tensor<2x8x4xf32>, tensor<2x8x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %dx = conv.pool_gradient %c, %y, %dy kernel <[2]> window <strides = [2], {{.*}}> layer "pool.grad" : tensor<2x8x4xf32>, tensor<2x4x1x4xf32>, tensor<2x4x1x4xf32> -> tensor<2x8x4xf32>
// CHECK:         %other = mlx.primitive "Reshape"
// CHECK:         func.return %dx, %other

// -----

// What stays: shares that go to other places, and what a backend refused.
func.func @forward(%x: tensor<2x4x4x4xf32>, %w: tensor<4x1x1x4xf32>, %dy: tensor<2x2x2x1x1x4xf32>) -> (tensor<2x4x4x4xf32>, tensor<2x4x4x4xf32>) {
  %c = conv.general %x, %w window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> : (tensor<2x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<2x4x4x4xf32>
  %s = mlx.primitive "Reshape"(%c) [array<i64: 2, 2, 2, 2, 2, 4>] : (tensor<2x4x4x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %v = mlx.primitive "Transpose"(%s) [array<i64: 0, 1, 3, 2, 4, 5>] : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %r = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 3, 4>] : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x1x1x4xf32>
  %rb = mlx.primitive "Broadcast"(%r) [array<i64: 2, 2, 2, 2, 2, 4>] : (tensor<2x2x2x1x1x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %e = mlx.primitive "Equal"(%v, %rb) [false] : (tensor<2x2x2x2x2x4xf32>, tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x2x2x4xi1>
  %n = mlx.primitive "Reduce"(%e) [2 : i64, array<i64: 3, 4>] : (tensor<2x2x2x2x2x4xi1>) -> tensor<2x2x2x1x1x4xi32>
  %ties = mlx.primitive "AsType"(%n) [f32] : (tensor<2x2x2x1x1x4xi32>) -> tensor<2x2x2x1x1x4xf32>
  %q = mlx.primitive "Divide"(%dy, %ties) [] : (tensor<2x2x2x1x1x4xf32>, tensor<2x2x2x1x1x4xf32>) -> tensor<2x2x2x1x1x4xf32>
  %qb = mlx.primitive "Broadcast"(%q) [array<i64: 2, 2, 2, 2, 2, 4>] : (tensor<2x2x2x1x1x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %mask = mlx.primitive "AsType"(%e) [f32] : (tensor<2x2x2x2x2x4xi1>) -> tensor<2x2x2x2x2x4xf32>
  %shares = mlx.primitive "Multiply"(%qb, %mask) [] : (tensor<2x2x2x2x2x4xf32>, tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %elsewhere = mlx.primitive "Transpose"(%shares) [array<i64: 0, 1, 2, 3, 4, 5>] : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %mixed = mlx.primitive "Reshape"(%elsewhere) [array<i64: 2, 4, 4, 4>] : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x4x4x4xf32>
  %back = mlx.primitive "Transpose"(%shares) [array<i64: 0, 1, 3, 2, 4, 5>] : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x2x2x2x2x4xf32>
  %refused = mlx.primitive "Reshape"(%back) [array<i64: 2, 4, 4, 4>] {refused = "its kernel does not run"} : (tensor<2x2x2x2x2x4xf32>) -> tensor<2x4x4x4xf32>
  return %mixed, %refused : tensor<2x4x4x4xf32>, tensor<2x4x4x4xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK-NOT:     conv.pool_gradient
// CHECK:         func.return %mixed, %refused
