func.func @forward(%x: tensor<1x4x4x16xf32> {mlx.index = 0 : i64, mlx.kind = "input", mlx.name = "x"}, %conv1.conv.weight: tensor<4x1x1x16xf32> {mlx.index = 0 : i64, mlx.kind = "prepared"}, %conv1.conv.bias: tensor<4xf32> {mlx.index = 1 : i64, mlx.kind = "prepared"}, %conv2.conv.weight: tensor<4x3x3x4xf32> {mlx.index = 2 : i64, mlx.kind = "prepared"}, %conv2.conv.bias: tensor<4xf32> {mlx.index = 3 : i64, mlx.kind = "prepared"}, %conv3.conv.weight: tensor<16x1x1x4xf32> {mlx.index = 4 : i64, mlx.kind = "prepared"}, %conv3.conv.bias: tensor<16xf32> {mlx.index = 5 : i64, mlx.kind = "prepared"}) -> tensor<1x4x4x16xf32> {
  %0 = conv.stretch(%x, %conv1.conv.weight, %conv1.conv.bias, %conv2.conv.weight, %conv2.conv.bias, %conv3.conv.weight, %conv3.conv.bias) {
  ^bb0(%x_1: tensor<1x4x4x16xf32>, %conv1.conv.weight_1: tensor<4x1x1x16xf32>, %conv1.conv.bias_1: tensor<4xf32>, %conv2.conv.weight_1: tensor<4x3x3x4xf32>, %conv2.conv.bias_1: tensor<4xf32>, %conv3.conv.weight_1: tensor<16x1x1x4xf32>, %conv3.conv.bias_1: tensor<16xf32>):
    %1 = conv.fused %x_1, %conv1.conv.weight_1 window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv1.conv" extras(%conv1.conv.bias_1 : tensor<4xf32>) {
    ^bb0(%sum: f32, %conv1.conv.bias_2: f32):
      %2 = arith.addf %sum, %conv1.conv.bias_2 : f32
      %3 = arith.constant 0.000000e+00 : f32
      %4 = arith.cmpf ugt, %2, %3 : f32
      %5 = arith.select %4, %2, %3 : f32
      conv.yield %5 : f32
    } {fused = "Add Maximum"} : (tensor<1x4x4x16xf32>, tensor<4x1x1x16xf32>) -> tensor<1x4x4x4xf32>
    %2 = conv.fused %1, %conv2.conv.weight_1 window <strides = [1, 1], pad = [1, 1] : [1, 1], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv2.conv" extras(%conv2.conv.bias_1 : tensor<4xf32>) {
    ^bb0(%sum: f32, %conv2.conv.bias_2: f32):
      %3 = arith.addf %sum, %conv2.conv.bias_2 : f32
      %4 = arith.constant 0.000000e+00 : f32
      %5 = arith.cmpf ugt, %3, %4 : f32
      %6 = arith.select %5, %3, %4 : f32
      conv.yield %6 : f32
    } {fused = "Add Maximum"} : (tensor<1x4x4x4xf32>, tensor<4x3x3x4xf32>) -> tensor<1x4x4x4xf32>
    %3 = conv.fused %2, %conv3.conv.weight_1 window <strides = [1, 1], pad = [0, 0] : [0, 0], dilation = [1, 1], input_dilation = [1, 1], groups = 1> layer "conv3.conv" extras(%conv3.conv.bias_1, %x_1 : tensor<16xf32>, tensor<1x4x4x16xf32>) {
    ^bb0(%sum: f32, %conv3.conv.bias_2: f32, %x_2: f32):
      %4 = arith.addf %sum, %conv3.conv.bias_2 : f32
      %5 = arith.addf %4, %x_2 : f32
      %6 = arith.constant 0.000000e+00 : f32
      %7 = arith.cmpf ugt, %5, %6 : f32
      %8 = arith.select %7, %5, %6 : f32
      conv.yield %8 : f32
    } {fused = "Add Add Maximum"} : (tensor<1x4x4x4xf32>, tensor<16x1x1x4xf32>) -> tensor<1x4x4x16xf32>
    conv.yield %3 : tensor<1x4x4x16xf32>
  } : (tensor<1x4x4x16xf32>, tensor<4x1x1x16xf32>, tensor<4xf32>, tensor<4x3x3x4xf32>, tensor<4xf32>, tensor<16x1x1x4xf32>, tensor<16xf32>) -> tensor<1x4x4x16xf32>
  func.return %0 : tensor<1x4x4x16xf32>
}
