// Four rows of a half matrix times a vector: half4 loads, a simdgroup a row.
// grid: 128 1 1
// threadgroup: 64 1 1
// input: x float16 80
// input: w float16 4 80
// output: y float16 4
// expects: w@x

[[kernel]] void custom_kernel_vector_matrix_product(
  const device half* x [[buffer(0)]],
  const device half* w [[buffer(1)]],
  device half* y [[buffer(2)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]) {
  uint g = thread_position_in_grid.x;
  uint l = thread_index_in_threadgroup;
  uint row = g / 32u;
  float sum = 0.0f;
  for (uint i = thread_index_in_simdgroup; i < 20u; i += 32u) {
    half4 a = ((const device half4*)(w + row * 80u))[i];
    half4 b = ((const device half4*)x)[i];
    sum += metal::dot(float4(a), float4(b));
  }
  sum = simd_sum(sum);
  if (thread_index_in_simdgroup == 0u) y[row] = half(sum);
}
