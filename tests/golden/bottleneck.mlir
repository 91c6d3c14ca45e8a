builtin.module {
  func.func @prepare(%conv1.conv.weight: tensor<4x1x1x16xf32> {mlx.index = 1 : i64, mlx.kind = "parameter", mlx.name = "conv1.conv.weight"}, %conv1.norm.weight: tensor<4xf32> {mlx.index = 2 : i64, mlx.kind = "parameter", mlx.name = "conv1.norm.weight"}, %conv1.norm.bias: tensor<4xf32> {mlx.index = 3 : i64, mlx.kind = "parameter", mlx.name = "conv1.norm.bias"}, %conv1.norm.running_mean: tensor<4xf32> {mlx.index = 4 : i64, mlx.kind = "parameter", mlx.name = "conv1.norm.running_mean"}, %conv1.norm.running_var: tensor<4xf32> {mlx.index = 5 : i64, mlx.kind = "parameter", mlx.name = "conv1.norm.running_var"}, %conv2.conv.weight: tensor<4x3x3x4xf32> {mlx.index = 6 : i64, mlx.kind = "parameter", mlx.name = "conv2.conv.weight"}, %conv2.norm.weight: tensor<4xf32> {mlx.index = 7 : i64, mlx.kind = "parameter", mlx.name = "conv2.norm.weight"}, %conv2.norm.bias: tensor<4xf32> {mlx.index = 8 : i64, mlx.kind = "parameter", mlx.name = "conv2.norm.bias"}, %conv2.norm.running_mean: tensor<4xf32> {mlx.index = 9 : i64, mlx.kind = "parameter", mlx.name = "conv2.norm.running_mean"}, %conv2.norm.running_var: tensor<4xf32> {mlx.index = 10 : i64, mlx.kind = "parameter", mlx.name = "conv2.norm.running_var"}, %conv3.conv.weight: tensor<16x1x1x4xf32> {mlx.index = 11 : i64, mlx.kind = "parameter", mlx.name = "conv3.conv.weight"}, %conv3.norm.weight: tensor<16xf32> {mlx.index = 12 : i64, mlx.kind = "parameter", mlx.name = "conv3.norm.weight"}, %conv3.norm.bias: tensor<16xf32> {mlx.index = 13 : i64, mlx.kind = "parameter", mlx.name = "conv3.norm.bias"}, %conv3.norm.running_mean: tensor<16xf32> {mlx.index = 14 : i64, mlx.kind = "parameter", mlx.name = "conv3.norm.running_mean"}, %conv3.norm.running_var: tensor<16xf32> {mlx.index = 15 : i64, mlx.kind = "parameter", mlx.name = "conv3.norm.running_var"}) -> (tensor<4x1x1x16xf32>, tensor<4xf32>, tensor<4x3x3x4xf32>, tensor<4xf32>, tensor<16x1x1x4xf32>, tensor<16xf32>) {
    %0 = mlx.constant 9.9999997473787516e-06 : f64 : tensor<f32>
    %1 = mlx.primitive "Broadcast"(%0) [array<i64: 4>] : (tensor<f32>) -> tensor<4xf32>
    %2 = mlx.primitive "Add"(%conv1.norm.running_var, %1) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %3 = mlx.primitive "Sqrt"(%2) [true] : (tensor<4xf32>) -> tensor<4xf32>
    %4 = mlx.primitive "Negative"(%conv1.norm.running_mean) [] : (tensor<4xf32>) -> tensor<4xf32>
    %5 = mlx.primitive "Multiply"(%4, %3) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %6 = mlx.primitive "Multiply"(%3, %conv1.norm.weight) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %7 = mlx.primitive "Multiply"(%5, %conv1.norm.weight) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %8 = mlx.primitive "Add"(%7, %conv1.norm.bias) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %9 = mlx.primitive "Reshape"(%6) [array<i64: 4, 1, 1, 1>] : (tensor<4xf32>) -> tensor<4x1x1x1xf32>
    %10 = mlx.primitive "Broadcast"(%9) [array<i64: 4, 1, 1, 16>] : (tensor<4x1x1x1xf32>) -> tensor<4x1x1x16xf32>
    %11 = mlx.primitive "Multiply"(%conv1.conv.weight, %10) [] : (tensor<4x1x1x16xf32>, tensor<4x1x1x16xf32>) -> tensor<4x1x1x16xf32>
    %12 = mlx.primitive "Add"(%conv2.norm.running_var, %1) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %13 = mlx.primitive "Sqrt"(%12) [true] : (tensor<4xf32>) -> tensor<4xf32>
    %14 = mlx.primitive "Negative"(%conv2.norm.running_mean) [] : (tensor<4xf32>) -> tensor<4xf32>
    %15 = mlx.primitive "Multiply"(%14, %13) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %16 = mlx.primitive "Multiply"(%13, %conv2.norm.weight) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %17 = mlx.primitive "Multiply"(%15, %conv2.norm.weight) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %18 = mlx.primitive "Add"(%17, %conv2.norm.bias) [] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %19 = mlx.primitive "Reshape"(%16) [array<i64: 4, 1, 1, 1>] : (tensor<4xf32>) -> tensor<4x1x1x1xf32>
    %20 = mlx.primitive "Broadcast"(%19) [array<i64: 4, 3, 3, 4>] : (tensor<4x1x1x1xf32>) -> tensor<4x3x3x4xf32>
    %21 = mlx.primitive "Multiply"(%conv2.conv.weight, %20) [] : (tensor<4x3x3x4xf32>, tensor<4x3x3x4xf32>) -> tensor<4x3x3x4xf32>
    %22 = mlx.primitive "Broadcast"(%0) [array<i64: 16>] : (tensor<f32>) -> tensor<16xf32>
    %23 = mlx.primitive "Add"(%conv3.norm.running_var, %22) [] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    %24 = mlx.primitive "Sqrt"(%23) [true] : (tensor<16xf32>) -> tensor<16xf32>
    %25 = mlx.primitive "Negative"(%conv3.norm.running_mean) [] : (tensor<16xf32>) -> tensor<16xf32>
    %26 = mlx.primitive "Multiply"(%25, %24) [] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    %27 = mlx.primitive "Multiply"(%24, %conv3.norm.weight) [] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    %28 = mlx.primitive "Multiply"(%26, %conv3.norm.weight) [] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    %29 = mlx.primitive "Add"(%28, %conv3.norm.bias) [] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
    %30 = mlx.primitive "Reshape"(%27) [array<i64: 16, 1, 1, 1>] : (tensor<16xf32>) -> tensor<16x1x1x1xf32>
    %31 = mlx.primitive "Broadcast"(%30) [array<i64: 16, 1, 1, 4>] : (tensor<16x1x1x1xf32>) -> tensor<16x1x1x4xf32>
    %32 = mlx.primitive "Multiply"(%conv3.conv.weight, %31) [] : (tensor<16x1x1x4xf32>, tensor<16x1x1x4xf32>) -> tensor<16x1x1x4xf32>
    func.return %11, %8, %21, %18, %32, %29 : tensor<4x1x1x16xf32>, tensor<4xf32>, tensor<4x3x3x4xf32>, tensor<4xf32>, tensor<16x1x1x4xf32>, tensor<16xf32>
  }
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
}
