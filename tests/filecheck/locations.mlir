// RUN: convjit-opt -p raise-conv --print-debuginfo %s | filecheck %s --check-prefix RAISED
// RUN: convjit-opt -p raise-conv,fold-pad,fold-scale --print-debuginfo %s | filecheck %s --check-prefix FOLDED
// RUN: convjit-opt -p raise-conv,fold-pad,fold-scale,fuse-epilogue --print-debuginfo %s | filecheck %s --check-prefix FUSED

// A convolution keeps the place that it comes from.
func.func @forward(%x: tensor<1x6x3xf32> {mlx.index = 0 : i64, mlx.kind = "input"}, %w: tensor<4x3x3xf32> {mlx.index = 1 : i64, mlx.kind = "parameter"}) -> tensor<1x6x4xf32> {
  %zero = mlx.constant 0.0 : f64 : tensor<f32>
  %two = mlx.constant 2.0 : f64 : tensor<f32>
  %p = mlx.primitive "Pad"(%x, %zero) [array<i64: 0, 1, 2>, array<i64: 0, 1, 0>, array<i64: 0, 1, 0>] : (tensor<1x6x3xf32>, tensor<f32>) -> tensor<1x8x3xf32>
  %y = mlx.primitive "Convolution"(%p, %w) [array<i64: 1>, array<i64: 0>, array<i64: 0>, array<i64: 1>, array<i64: 1>, 1 : i64, false] : (tensor<1x8x3xf32>, tensor<4x3x3xf32>) -> tensor<1x6x4xf32> loc("model.py":7:3)
  %b = mlx.primitive "Broadcast"(%two) [array<i64: 1, 6, 4>] : (tensor<f32>) -> tensor<1x6x4xf32>
  %m = mlx.primitive "Multiply"(%y, %b) [] : (tensor<1x6x4xf32>, tensor<1x6x4xf32>) -> tensor<1x6x4xf32>
  %t = mlx.primitive "Tanh"(%m) [] : (tensor<1x6x4xf32>) -> tensor<1x6x4xf32>
  return %t : tensor<1x6x4xf32>
}

// RAISED: conv.general %p, %w {{.*}} loc("model.py":7:3)
// FOLDED: conv.general %x, %{{.*}} pad = [1] : [1], {{.*}} loc("model.py":7:3)
// FUSED:  conv.fused %x,
// FUSED:  } {fused = "Tanh"} {{.*}} loc("model.py":7:3)
