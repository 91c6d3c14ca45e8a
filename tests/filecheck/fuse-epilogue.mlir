// RUN: convjit-opt -p fuse-epilogue --split-input-file %s | filecheck %s
// RUN: convjit-opt -p 'fuse-epilogue{max-extras=1}' --split-input-file %s | filecheck %s --check-prefix LIMIT

// SiLU: the sum is read twice inside. Constants are written as numbers, each once.
func.func @silu(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> layer "conv" : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %s = mlx.primitive "Sigmoid"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Multiply"(%y, %s) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @silu
// CHECK-NEXT: %z = conv.fused %x, %w window <{{.*}}> layer "conv" {
// CHECK-NEXT: ^{{.*}}(%sum: f32):
// CHECK-NEXT:   [[ONE:%[^ ]+]] = arith.constant 1.000000e+00 : f32
// CHECK-NEXT:   [[N:%[^ ]+]] = arith.negf %sum
// CHECK-NEXT:   [[E:%[^ ]+]] = math.exp [[N]]
// CHECK-NEXT:   [[A:%[^ ]+]] = arith.addf [[ONE]], [[E]]
// CHECK-NEXT:   [[D:%[^ ]+]] = arith.divf [[ONE]], [[A]]
// CHECK-NEXT:   [[Z:%[^ ]+]] = arith.mulf %sum, [[D]]
// CHECK-NEXT:   conv.yield [[Z]] : f32
// CHECK-NEXT: } {fused = "Sigmoid Multiply"}
// CHECK-NEXT: func.return %z

// -----

// GELU with erf, on a transposed convolution.
func.func @gelu(%x: tensor<1x4x4xf32>, %w: tensor<8x2x4xf32>) -> tensor<1x8x8xf32> {
  %c = mlx.constant 1.4142135381698608 : f64 : tensor<f32>
  %k1 = mlx.constant 1.0 : f64 : tensor<f32>
  %k2 = mlx.constant 2.0 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1], pad = [1] : [1], dilation = [1], input_dilation = [2], groups = 1, flip> : (tensor<1x4x4xf32>, tensor<8x2x4xf32>) -> tensor<1x8x8xf32>
  %cb = mlx.primitive "Broadcast"(%c) [array<i64: 1, 8, 8>] : (tensor<f32>) -> tensor<1x8x8xf32>
  %d = mlx.primitive "Divide"(%y, %cb) [] : (tensor<1x8x8xf32>, tensor<1x8x8xf32>) -> tensor<1x8x8xf32>
  %e = mlx.primitive "Erf"(%d) [] : (tensor<1x8x8xf32>) -> tensor<1x8x8xf32>
  %k1b = mlx.primitive "Broadcast"(%k1) [array<i64: 1, 8, 8>] : (tensor<f32>) -> tensor<1x8x8xf32>
  %a = mlx.primitive "Add"(%e, %k1b) [] : (tensor<1x8x8xf32>, tensor<1x8x8xf32>) -> tensor<1x8x8xf32>
  %m = mlx.primitive "Multiply"(%y, %a) [] : (tensor<1x8x8xf32>, tensor<1x8x8xf32>) -> tensor<1x8x8xf32>
  %k2b = mlx.primitive "Broadcast"(%k2) [array<i64: 1, 8, 8>] : (tensor<f32>) -> tensor<1x8x8xf32>
  %z = mlx.primitive "Divide"(%m, %k2b) [] : (tensor<1x8x8xf32>, tensor<1x8x8xf32>) -> tensor<1x8x8xf32>
  return %z : tensor<1x8x8xf32>
}
// CHECK-LABEL: @gelu
// CHECK-NEXT: %z = conv.fused %x, %w window <{{.*}}input_dilation = [2], groups = 1, flip> {
// CHECK:        [[D:%[^ ]+]] = arith.divf %sum,
// CHECK-NEXT:   [[E:%[^ ]+]] = math.erf [[D]]
// CHECK:        [[A:%[^ ]+]] = arith.addf [[E]],
// CHECK-NEXT:   [[M:%[^ ]+]] = arith.mulf %sum, [[A]]
// CHECK:        [[Z:%[^ ]+]] = arith.divf [[M]],
// CHECK-NEXT:   conv.yield [[Z]]
// CHECK-NOT:  mlx.

// -----

// GELU with tanh: a cube is two multiplications, and its exponent is gone.
func.func @gelu_tanh(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>) -> tensor<1x4x8xf32> {
  %c3 = mlx.constant 3.0 : f64 : tensor<f32>
  %ck = mlx.constant 0.044714998453855515 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %k3b = mlx.primitive "Broadcast"(%c3) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %p = mlx.primitive "Power"(%y, %k3b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %bk = mlx.primitive "Broadcast"(%ck) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %q = mlx.primitive "Multiply"(%p, %bk) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Add"(%y, %q) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %t = mlx.primitive "Tanh"(%a) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Multiply"(%y, %t) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @gelu_tanh
// CHECK-NEXT: %z = conv.fused
// CHECK-NEXT: ^{{.*}}(%sum: f32):
// CHECK-NEXT:   [[S:%[^ ]+]] = arith.mulf %sum, %sum
// CHECK-NEXT:   [[C:%[^ ]+]] = arith.mulf [[S]], %sum
// CHECK-NOT:    3.000000e+00
// CHECK:        math.tanh
// CHECK-NOT:  mlx.

// -----

// Squeeze and excite: the gate depends on the convolution by way of a sum, so the last product stays plain.
func.func @gate(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>) -> tensor<1x4x8xf32> {
  %k0 = mlx.constant 0.0 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %k0b = mlx.primitive "Broadcast"(%k0) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %r = mlx.primitive "Maximum"(%y, %k0b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %m = mlx.primitive "Reduce"(%r) [2 : i64, array<i64: 1>] : (tensor<1x4x8xf32>) -> tensor<1x1x8xf32>
  %g = mlx.primitive "Sigmoid"(%m) [] : (tensor<1x1x8xf32>) -> tensor<1x1x8xf32>
  %gb = mlx.primitive "Broadcast"(%g) [array<i64: 1, 4, 8>] : (tensor<1x1x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Multiply"(%r, %gb) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @gate
// CHECK-NEXT: %r = conv.fused %x, %w
// CHECK:        arith.cmpf ugt, %sum,
// CHECK:      } {fused = "Maximum"}
// CHECK-NEXT: %m = mlx.primitive "Reduce"(%r)
// CHECK-NEXT: %g = mlx.primitive "Sigmoid"(%m)
// CHECK-NEXT: %gb = mlx.primitive "Broadcast"(%g)
// CHECK-NEXT: %z = mlx.primitive "Multiply"(%r, %gb)

// -----

// A residual sum and its scaled ReLU are both needed: two results. The vectors are read narrow.
func.func @residual(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>, %r: tensor<1x4x8xf32>, %s: tensor<8xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x8xf32>) {
  %k0 = mlx.constant 0.0 : f64 : tensor<f32>
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Add"(%r, %y) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %sb = mlx.primitive "Broadcast"(%s) [array<i64: 1, 4, 8>] : (tensor<8xf32>) -> tensor<1x4x8xf32>
  %m = mlx.primitive "Multiply"(%a, %sb) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %k0b = mlx.primitive "Broadcast"(%k0) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Maximum"(%m, %k0b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %a, %z : tensor<1x4x8xf32>, tensor<1x4x8xf32>
}
// CHECK-LABEL: @residual
// CHECK-NEXT: %a, %z = conv.fused %x, %w window <{{.*}}> extras(%r, %s : tensor<1x4x8xf32>, tensor<8xf32>) {
// CHECK-NEXT: ^{{.*}}(%sum: f32, [[R:%[^ ]+]]: f32, [[S:%[^ ]+]]: f32):
// CHECK-NEXT:   [[A:%[^ ]+]] = arith.addf [[R]], %sum
// CHECK-NEXT:   [[M:%[^ ]+]] = arith.mulf [[A]], [[S]]
// CHECK:        [[Z:%[^ ]+]] = arith.select {{.*}}, [[M]],
// CHECK-NEXT:   conv.yield [[A]], [[Z]] : f32, f32
// CHECK:      func.return %a, %z

// One extra only: the DAG ends in front of the second.
// LIMIT-LABEL: @residual
// LIMIT:       %a = conv.fused %x, %w window <{{.*}}> extras(%r : tensor<1x4x8xf32>) {
// LIMIT:       mlx.primitive "Multiply"(%a, %sb)

// -----

// Half storage: f32 inside, rounded where it is stored, and by the traced casts: to a half type, and from one.
func.func @half(%x: tensor<1x4x4xf16>, %w: tensor<8x1x4xf16>, %b: tensor<8xf16>) -> (tensor<1x4x8xf16>, tensor<1x4x8xf32>) {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf16>, tensor<8x1x4xf16>) -> tensor<1x4x8xf16>
  %bb = mlx.primitive "Broadcast"(%b) [array<i64: 1, 4, 8>] : (tensor<8xf16>) -> tensor<1x4x8xf16>
  %a = mlx.primitive "Add"(%y, %bb) [] : (tensor<1x4x8xf16>, tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %f = mlx.primitive "AsType"(%a) [f32] : (tensor<1x4x8xf16>) -> tensor<1x4x8xf32>
  %t = mlx.primitive "Tanh"(%f) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %h = mlx.primitive "AsType"(%t) [bf16] : (tensor<1x4x8xf32>) -> tensor<1x4x8xbf16>
  %g = mlx.primitive "AsType"(%h) [f32] : (tensor<1x4x8xbf16>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Exp"(%g) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %a, %z : tensor<1x4x8xf16>, tensor<1x4x8xf32>
}
// CHECK-LABEL: @half
// CHECK-NEXT: %a, %z = conv.fused %x, %w window <{{.*}}> extras(%b : tensor<8xf16>) {
// CHECK-NEXT: ^{{.*}}(%sum: f32, [[B:%[^ ]+]]: f16):
// CHECK-NEXT:   [[BF:%[^ ]+]] = arith.extf [[B]] : f16 to f32
// CHECK-NEXT:   [[A:%[^ ]+]] = arith.addf %sum, [[BF]] : f32
// CHECK-NEXT:   [[N:%[^ ]+]] = arith.truncf [[A]] : f32 to f16
// CHECK-NEXT:   [[F:%[^ ]+]] = arith.extf [[N]] : f16 to f32
// CHECK-NEXT:   [[T:%[^ ]+]] = math.tanh [[F]] : f32
// CHECK-NEXT:   [[H:%[^ ]+]] = arith.truncf [[T]] : f32 to bf16
// CHECK-NEXT:   [[G:%[^ ]+]] = arith.extf [[H]] : bf16 to f32
// CHECK-NEXT:   [[Z:%[^ ]+]] = math.exp [[G]] : f32
// CHECK-NEXT:   [[AH:%[^ ]+]] = arith.truncf [[A]] : f32 to f16
// CHECK-NEXT:   conv.yield [[AH]], [[Z]] : f16, f32
// CHECK-NEXT: } {{.*}} -> tensor<1x4x8xf16>, tensor<1x4x8xf32>

// -----

// A kernel stores no predicate: the comparison stays plain, behind all of its operands; a constant predicate fuses.
func.func @predicate(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>, %r: tensor<1x4x8xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x8xi1>) {
  %t = mlx.constant true : tensor<i1>
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %n = mlx.primitive "Negative"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %tb = mlx.primitive "Broadcast"(%t) [array<i64: 1, 4, 8>] : (tensor<i1>) -> tensor<1x4x8xi1>
  %s = mlx.primitive "Select"(%tb, %n, %y) [] : (tensor<1x4x8xi1>, tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %e = mlx.primitive "Exp"(%r) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %p = mlx.primitive "Greater"(%s, %e) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xi1>
  return %s, %p : tensor<1x4x8xf32>, tensor<1x4x8xi1>
}
// CHECK-LABEL: @predicate
// CHECK-NEXT: %s = conv.fused %x, %w
// CHECK:        arith.constant true
// CHECK:        arith.select
// CHECK:      %e = mlx.primitive "Exp"(%r)
// CHECK-NEXT: %p = mlx.primitive "Greater"(%s, %e)

// -----

// What reads an inner value in front of the DAG's end follows the kernel; a bare convolution is a kernel, too.
func.func @order(%x: tensor<1x4x4xf32>, %w: tensor<8x1x4xf32>, %r: tensor<1x4x8xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>) {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  %q = mlx.primitive "Sort"(%y) [1 : i64] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %e = mlx.primitive "Sort"(%r) [1 : i64] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Subtract"(%e, %y) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %v = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x4xf32>, tensor<8x1x4xf32>) -> tensor<1x4x8xf32>
  return %q, %z, %v : tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>
}
// CHECK-LABEL: @order
// CHECK-NEXT: %e = mlx.primitive "Sort"(%r)
// CHECK-NEXT: %y, %z = conv.fused %x, %w window <{{.*}}> extras(%e :
// CHECK:      %q = mlx.primitive "Sort"(%y)
// CHECK-NEXT: %v = conv.fused %x, %w window <{{.*}}> {
// CHECK-NEXT: ^{{.*}}(%sum: f32):
// CHECK-NEXT:   conv.yield %sum : f32

// -----

// Hardswish: sum and clipped sum meet again; NaN passes through both bounds.
func.func @hardswish(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %threec = mlx.constant 3.0 : f64 : tensor<f32>
  %three = mlx.primitive "Broadcast"(%threec) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %zeroc = mlx.constant 0.0 : f64 : tensor<f32>
  %zero = mlx.primitive "Broadcast"(%zeroc) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %sixc = mlx.constant 6.0 : f64 : tensor<f32>
  %six = mlx.primitive "Broadcast"(%sixc) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Add"(%y, %three) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %b = mlx.primitive "Maximum"(%a, %zero) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %c = mlx.primitive "Minimum"(%b, %six) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %d = mlx.primitive "Multiply"(%y, %c) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Divide"(%d, %six) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @hardswish
// CHECK-NEXT: %z = conv.fused
// CHECK:        [[A:%[^ ]+]] = arith.addf %sum,
// CHECK:        [[M:%[^ ]+]] = arith.cmpf ugt, [[A]], [[ZERO:%[^ ]+]] :
// CHECK-NEXT:   [[B:%[^ ]+]] = arith.select [[M]], [[A]], [[ZERO]]
// CHECK:        [[N:%[^ ]+]] = arith.cmpf ult, [[B]], [[SIX:%[^ ]+]] :
// CHECK-NEXT:   [[C:%[^ ]+]] = arith.select [[N]], [[B]], [[SIX]]
// CHECK-NEXT:   [[D:%[^ ]+]] = arith.mulf %sum, [[C]]
// CHECK-NEXT:   [[Z:%[^ ]+]] = arith.divf [[D]], [[SIX]]
// CHECK-NEXT:   conv.yield [[Z]]
// CHECK-NEXT: } {fused = "Add Maximum Minimum Multiply Divide"}

// -----

// Mish: tanh of a softplus, which is LogAddExp with zero.
func.func @mish(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %zeroc = mlx.constant 0.0 : f64 : tensor<f32>
  %zero = mlx.primitive "Broadcast"(%zeroc) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "LogAddExp"(%y, %zero) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %b = mlx.primitive "Tanh"(%a) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Multiply"(%y, %b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @mish
// CHECK-NEXT: %z = conv.fused
// CHECK:        math.log1p
// CHECK:        [[T:%[^ ]+]] = math.tanh
// CHECK-NEXT:   [[Z:%[^ ]+]] = arith.mulf %sum, [[T]]
// CHECK-NEXT:   conv.yield [[Z]]
// CHECK-NEXT: } {fused = "LogAddExp Tanh Multiply"}

// -----

// GELU, the fast one: a sigmoid of the scaled sum.
func.func @gelu_fast(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %kc = mlx.constant 1.702 : f64 : tensor<f32>
  %k = mlx.primitive "Broadcast"(%kc) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Multiply"(%y, %k) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %b = mlx.primitive "Sigmoid"(%a) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Multiply"(%y, %b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @gelu_fast
// CHECK-NEXT: %z = conv.fused
// CHECK:        arith.mulf %sum,
// CHECK:        [[S:%[^ ]+]] = arith.divf
// CHECK-NEXT:   [[Z:%[^ ]+]] = arith.mulf %sum, [[S]]
// CHECK-NEXT:   conv.yield [[Z]]
// CHECK-NEXT: } {fused = "Multiply Sigmoid Multiply"}

// -----

// Two convolutions that are added: the first takes the sum, the second is its extra, and no kernel is written twice.
func.func @two(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %v = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Add"(%y, %v) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Tanh"(%a) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @two
// CHECK-NEXT: %v = conv.fused %x, %w window <{{.*}}> {
// CHECK-NEXT: ^{{.*}}(%sum: f32):
// CHECK-NEXT:   conv.yield %sum
// CHECK:      %z = conv.fused %x, %w window <{{.*}}> extras(%v : tensor<1x4x8xf32>) {
// CHECK:      } {fused = "Add Tanh"}
// CHECK-NOT:  conv.fused

// -----

// A kernel has at most four results: the ops that would make more stay plain.
func.func @many(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>) {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %a = mlx.primitive "Exp"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %b = mlx.primitive "Sin"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %c = mlx.primitive "Cos"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %d = mlx.primitive "Tanh"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %e = mlx.primitive "Tan"(%y) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %a, %b, %c, %d, %e : tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>, tensor<1x4x8xf32>
}
// CHECK-LABEL: @many
// CHECK-NEXT: %y, %a, %b, %c = conv.fused
// CHECK:      } {fused = "Exp Sin Cos"}
// CHECK-NEXT: %d = mlx.primitive "Tanh"(%y)
// CHECK-NEXT: %e = mlx.primitive "Tan"(%y)

// -----

// A constant is what its casts make of it: 0.1 by way of f16.
func.func @cast_constant(%x: tensor<1x4x8xf32>, %w: tensor<8x1x8xf32>) -> tensor<1x4x8xf32> {
  %y = conv.general %x, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x8xf32>, tensor<8x1x8xf32>) -> tensor<1x4x8xf32>
  %k = mlx.constant 0.1 : f64 : tensor<f32>
  %h = mlx.primitive "AsType"(%k) [f16] : (tensor<f32>) -> tensor<f16>
  %f = mlx.primitive "AsType"(%h) [f32] : (tensor<f16>) -> tensor<f32>
  %b = mlx.primitive "Broadcast"(%f) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %z = mlx.primitive "Add"(%y, %b) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %z : tensor<1x4x8xf32>
}
// CHECK-LABEL: @cast_constant
// CHECK:        arith.constant 0.0999755859 : f32

// -----

// A mask that only the epilogue reads is made in it, from a ReLU's result rather than its input. Beside a weight gradient
// a kernel has one result.
func.func @forward(%x: tensor<1x4x2xf32>, %dy: tensor<1x4x2xf32>, %w: tensor<2x1x2xf32>) -> (tensor<1x4x2xf32>, tensor<1x4x2xf32>, tensor<1x4x2xf32>, tensor<2x1x2xf32>) {
  %0 = mlx.constant 0.000000e+00 : f64 : tensor<f32>
  %zeros = mlx.primitive "Broadcast"(%0) [array<i64: 1, 4, 2>] : (tensor<f32>) -> tensor<1x4x2xf32>
  %relu = mlx.primitive "Maximum"(%x, %zeros) [] : (tensor<1x4x2xf32>, tensor<1x4x2xf32>) -> tensor<1x4x2xf32>
  %greater = mlx.primitive "Greater"(%x, %zeros) [] : (tensor<1x4x2xf32>, tensor<1x4x2xf32>) -> tensor<1x4x2xi1>
  %mask = mlx.primitive "AsType"(%greater) [f32] : (tensor<1x4x2xi1>) -> tensor<1x4x2xf32>
  %y = conv.general %dy, %w window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x2xf32>, tensor<2x1x2xf32>) -> tensor<1x4x2xf32>
  %masked = mlx.primitive "Multiply"(%y, %mask) [] : (tensor<1x4x2xf32>, tensor<1x4x2xf32>) -> tensor<1x4x2xf32>
  %negative = mlx.primitive "Negative"(%masked) [] : (tensor<1x4x2xf32>) -> tensor<1x4x2xf32>
  %dw = conv.weight_gradient %relu, %dy window <strides = [1], pad = [0] : [0], dilation = [1], input_dilation = [1], groups = 1> : (tensor<1x4x2xf32>, tensor<1x4x2xf32>) -> tensor<2x1x2xf32>
  return %relu, %masked, %negative, %dw : tensor<1x4x2xf32>, tensor<1x4x2xf32>, tensor<1x4x2xf32>, tensor<2x1x2xf32>
}
// CHECK-LABEL: func.func @forward
// CHECK:         %relu = mlx.primitive "Maximum"
// CHECK-NEXT:    %masked = conv.fused %dy, %w window {{.*}} extras(%relu : tensor<1x4x2xf32>) {
// CHECK-NEXT:    ^{{.*}}(%sum: f32, [[RELU:%[^:]+]]: f32):
// CHECK-NEXT:      [[ZERO:%[^ ]+]] = arith.constant 0.000000e+00 : f32
// CHECK-NEXT:      [[GREATER:%[^ ]+]] = arith.cmpf ogt, [[RELU]], [[ZERO]] : f32
// CHECK-NEXT:      [[MASK:%[^ ]+]] = arith.uitofp [[GREATER]] : i1 to f32
// CHECK-NEXT:      [[MASKED:%[^ ]+]] = arith.mulf %sum, [[MASK]] : f32
// CHECK-NEXT:      conv.yield [[MASKED]] : f32
// CHECK-NEXT:    } {fused = "Greater AsType Multiply"}
// CHECK-NEXT:    %negative = mlx.primitive "Negative"(%masked)

// -----

// A norm with scale, shift and ReLU. One that has an epilogue keeps it.
func.func @norm(%x: tensor<1x4x8xf32>, %g: tensor<8xf32>, %b: tensor<8xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x8xf32>) {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %y = conv.norm %x as <[1, 4, 2, 4]> eps 1.0e-05 : f64 centered layer "norm" {
  ^bb0(%normalised: f32):
    conv.yield %normalised : f32
  } : tensor<1x4x8xf32> -> tensor<1x4x8xf32>
  %gb = mlx.primitive "Broadcast"(%g) [array<i64: 1, 4, 8>] : (tensor<8xf32>) -> tensor<1x4x8xf32>
  %m = mlx.primitive "Multiply"(%gb, %y) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %bb = mlx.primitive "Broadcast"(%b) [array<i64: 1, 4, 8>] : (tensor<8xf32>) -> tensor<1x4x8xf32>
  %s = mlx.primitive "Add"(%m, %bb) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %zb = mlx.primitive "Broadcast"(%zero) [array<i64: 1, 4, 8>] : (tensor<f32>) -> tensor<1x4x8xf32>
  %r = mlx.primitive "Maximum"(%s, %zb) [] : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %done = conv.norm %r as <[4, 1, 1, 8]> eps 1.0e-05 : f64 layer "norm#2" {
  ^bb0(%normalised: f32):
    %double = arith.addf %normalised, %normalised : f32
    conv.yield %double : f32
  } : tensor<1x4x8xf32> -> tensor<1x4x8xf32>
  %q = mlx.primitive "Square"(%done) [] : (tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %r, %q : tensor<1x4x8xf32>, tensor<1x4x8xf32>
}
// CHECK-LABEL: @norm
// CHECK:      %r = conv.norm %x as <[1, 4, 2, 4]> eps 1.000000e-05 : f64 centered layer "norm" extras(%g, %b : tensor<8xf32>, tensor<8xf32>) {
// CHECK-NEXT: ^{{.*}}(%normalised: f32, [[G:%[^ ]+]]: f32, [[B:%[^ ]+]]: f32):
// CHECK-NEXT:   [[M:%[^ ]+]] = arith.mulf [[G]], %normalised
// CHECK-NEXT:   [[S:%[^ ]+]] = arith.addf [[M]], [[B]]
// CHECK:      } {fused = "Multiply Add Maximum"} : tensor<1x4x8xf32> -> tensor<1x4x8xf32>
// CHECK-NEXT: %done = conv.norm %r as <[4, 1, 1, 8]> eps 1.000000e-05 : f64 layer "norm#2" {
// CHECK-NEXT: ^{{.*}}(%normalised: f32):
// CHECK-NEXT:   %double = arith.addf %normalised, %normalised
// CHECK:      %q = mlx.primitive "Square"(%done)
// LIMIT-LABEL: @norm
// LIMIT:      {fused = "Multiply"}
