func.func @forward(%x: tensor<1x4x4x16xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"}, %0: tensor<4x1x1x16xf32> {mlx.index = 0 : i64, mlx.kind = "prepared"}, %1: tensor<4xf32> {mlx.index = 1 : i64, mlx.kind = "prepared"}, %2: tensor<4x3x3x4xf32> {mlx.index = 2 : i64, mlx.kind = "prepared"}, %3: tensor<4xf32> {mlx.index = 3 : i64, mlx.kind = "prepared"}, %4: tensor<16x1x1x4xf32> {mlx.index = 4 : i64, mlx.kind = "prepared"}, %5: tensor<16xf32> {mlx.index = 5 : i64, mlx.kind = "prepared"}) -> tensor<1x4x4x16xf32> {
  %6 = conv.stretch(%x, %0, %1, %2, %3, %4, %5) {
  ^bb0(%x_1: tensor<1x4x4x16xf32>, %7: tensor<4x1x1x16xf32>, %8: tensor<4xf32>, %9: tensor<4x3x3x4xf32>, %10: tensor<4xf32>, %11: tensor<16x1x1x4xf32>, %12: tensor<16xf32>):
    %13 = conv.fused %x_1, %7 window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv1.conv" extras(%8 : tensor<4xf32>) {
    ^bb0(%sum: f32, %14: f32):
      %15 = arith.addf %sum, %14 : f32
      %16 = arith.constant 0.000000e+00 : f32
      %17 = arith.cmpf ugt, %15, %16 : f32
      %18 = arith.select %17, %15, %16 : f32
      conv.yield %18 : f32
    } {fused = "Add Maximum"} : (tensor<1x4x4x16xf32>, tensor<4x1x1x16xf32>) -> tensor<1x4x4x4xf32>
    %14 = conv.fused %13, %9 window <strides = [1, 1], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv2.conv" extras(%10 : tensor<4xf32>) {
    ^bb0(%sum: f32, %15: f32):
      %16 = arith.addf %sum, %15 : f32
      %17 = arith.constant 0.000000e+00 : f32
      %18 = arith.cmpf ugt, %16, %17 : f32
      %19 = arith.select %18, %16, %17 : f32
      conv.yield %19 : f32
    } {fused = "Add Maximum"} : (tensor<1x4x4x4xf32>, tensor<4x3x3x4xf32>) -> tensor<1x4x4x4xf32>
    %15 = conv.fused %14, %11 window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv3.conv" extras(%12, %x_1 : tensor<16xf32>, tensor<1x4x4x16xf32>) {
    ^bb0(%sum: f32, %16: f32, %x_2: f32):
      %17 = arith.addf %sum, %16 : f32
      %18 = arith.addf %17, %x_2 : f32
      %19 = arith.constant 0.000000e+00 : f32
      %20 = arith.cmpf ugt, %18, %19 : f32
      %21 = arith.select %20, %18, %19 : f32
      conv.yield %21 : f32
    } {fused = "Add Add Maximum"} : (tensor<1x4x4x4xf32>, tensor<16x1x1x4xf32>) -> tensor<1x4x4x16xf32>
    conv.yield %15 : tensor<1x4x4x16xf32>
  } : (tensor<1x4x4x16xf32>, tensor<4x1x1x16xf32>, tensor<4xf32>, tensor<4x3x3x4xf32>, tensor<4xf32>, tensor<16x1x1x4xf32>, tensor<16xf32>) -> tensor<1x4x4x16xf32>
  func.return %6 : tensor<1x4x4x16xf32>
}
