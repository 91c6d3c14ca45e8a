"""The stand-in for Apple's headers: what users' kernels call, with the values that Metal's specification gives."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest

from convjit import simulator

# Each line gives one float, and the value it must have.
VALUES = {
    "vectors and swizzles": """
        dot(v.xy, v.zw)                                  | 1 * 3 + 2 * 4
        dot(v.xyz, float3(1.0f))                         | 6
        v.wzyx[0]                                        | 4
        (v.xy + v.zw).y                                  | 6
        (v.xy * 2.0f).x                                  | 2
        v.rgb[2]                                         | 3
        float4(v.xy, v.xy).w                             | 2
        swapped(v).x                                     | 2
        swapped(v).z                                     | 3
        (v += v.wzyx).x                                  | 5
        max(v.xy, float2(1.5f)).x                        | 1.5
        clamp(v, 2.0f, 3.0f).w                           | 3
        (float)all(v > 0.0f)                             | 1
        (float)any(v.xy > float2(5.0f, 6.0f))            | 0
        select(v, -v, v > 2.5f).z                        | -3
        static_cast<float4>(int4(1, 2, 3, 4)).y          | 2
        (float)as_type<uint2>(float2(1.0f, 2.0f)).y      | 0x40000000
        length(float2(3.0f, 4.0f))                       | 5
        cross(float3(1, 0, 0), float3(0, 1, 0)).z        | 1
        normalize(v.xx).y                                | math.sqrt(0.5)
        (float2x2(float2(1, 2), float2(3, 4)) * v.xy).x  | 1 * 1 + 2 * 3
        transpose(float2x3(float3(1, 2, 3), float3(4, 5, 6)))[2].y | 6
    """,
    "packed vectors": """
        (float)sizeof(packed_float3)                     | 12
        (float)sizeof(float3)                            | 16
        (float)alignof(packed_half4)                     | 2
        (float3(p) * 2.0f).z                             | 6
        (p + p).y                                        | 4
        packed_float3(v.xyz)[2]                          | 3
        dot(p, float3(1.0f))                             | 6
    """,
    "numbers": """
        fract(-0.25f)                                    | 0.75
        sign(-2.0f) + saturate(7.0f)                     | 0
        mix(1.0f, 3.0f, 0.25f)                           | 1.5
        smoothstep(0.0f, 1.0f, 0.5f)                     | 0.5
        step(1.0f, 0.5f)                                 | 0
        precise::exp(0.0f) + fast::exp(0.0f)             | 2
        ldexp(3.0f, 4)                                   | 48
        frexp(48.0f, exponent) + (float)exponent         | 6.75
        modf(2.5f, whole_part) + whole_part * 10.0f      | 20.5
        sinpi(0.5f)                                      | 1
        median3(3, 1, 2)                                 | 2
        fmedian3(3.0f, 1.0f, 2.0f)                       | 2
        (float)(half)65504.0h                            | 65504
        rint(2.5f) + round(2.5f)                         | 5
    """,
    "integers": """
        popcount(0xf0u)                                  | 4
        clz(1u) + ctz(8u)                                | 34
        clz((ushort)1)                                   | 15
        clz(0)                                           | 32
        mulhi(0x80000000u, 6u)                           | 3
        (float)mulhi(-1, 1)                              | -1
        absdiff(-3, 4)                                   | 7
        addsat((uchar)250, (uchar)10)                    | 255
        subsat(3u, 5u)                                   | 0
        rotate(0x80000001u, 1u)                          | 3
        reverse_bits((uchar)1)                           | 128
        extract_bits(0xabcdu, 4u, 8u)                    | 0xbc
        extract_bits(0x80, 4u, 4u)                       | -8
        insert_bits(0u, 5u, 4u, 3u)                      | 0x50
        mad24(3, 4, 5)                                   | 17
        (float)INT_MIN                                   | -(2**31)
        (float)numeric_limits<ushort>::max()             | 65535
        unpack_unorm4x8_to_float(0xff00u).y              | 1
        (float)pack_float_to_snorm4x8(float4(-1, 0, 0, 1)) | 0x7f000081
    """,
    "bfloat": """
        (float)(bfloat16_t(1.5f) + bfloat16_t(2.0f))     | 3.5
        bfloat16_t(1.5f) + 1.0f                          | 2.5
        (float)(bfloat16_t(3.0f) * 2)                    | 6
        (float)(bfloat16_t)257.0f                        | 256
        (float)metal::exp(bfloat16_t(0.0f))              | 1
        (float)bfloat4(bfloat(1.0f)).w                   | 1
        (float)fma(bfloat16_t(2.0f), bfloat16_t(3.0f), bfloat16_t(1.0f)) | 7
    """,
    "MLX's preamble": """
        (complex64_t(1.0f, 2.0f) * complex64_t(3.0f, 4.0f)).imag | 10
        (complex64_t(1.0f, 2.0f) / complex64_t(0.0f, 1.0f)).real | 2
        ceildiv(7, 2)                                    | 4
        (float)elem_to_loc(5u, shape, strides, 2)        | 1 * 10 + 2
        (float)elem_to_loc(uint3(2, 1, 0), shape, strides, 2) | 1 * 10 + 2
        Limits<float>::min                               | -math.inf
        (float)Limits<int>::max                          | 2147483647.0
    """,
    "types": """
        (float)is_same_v<conditional_t<true, int, float>, int>    | 1
        (float)is_convertible_v<float, bfloat>           | 0
        (float)is_convertible_v<bfloat, float>           | 1
        (float)(is_signed_v<char> && is_unsigned_v<uint>) | 1
        (float)is_floating_point_v<half>                 | 1
        (float)integral_constant<int, 3>::value          | 3
        (float)is_same_v<remove_cv_t<const volatile int>, int> | 1
    """,
}

HEADER = """
inline float4 swapped(float4 v) { v.xy = v.yx; return v; }
"""
SETUP = """
  float4 v(1.0f, 2.0f, 3.0f, 4.0f);
  packed_float3 p(1.0f, 2.0f, 3.0f);
  int exponent;
  float whole_part;
  const int shape[2] = {2, 3};
  const int64_t strides[2] = {10, 1};
"""


@pytest.mark.parametrize("group", VALUES)
def test_values(group: str) -> None:
    pairs = [line.rsplit("|", 1) for line in VALUES[group].strip().splitlines()]
    body = [f"  {{ {SETUP} y[{i}] = (float)({code.strip()}); }}" for i, (code, _) in enumerate(pairs)]
    kernel = mx.fast.metal_kernel("standin", ["x"], ["y"], "\n".join(body), HEADER)

    def call(x: mx.array) -> list[mx.array]:
        return kernel(
            inputs=[x],
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            output_shapes=[(len(pairs),)],
            output_dtypes=[mx.float32],
        )

    (values,) = simulator.run(call, mx.zeros(8))
    for (code, expected), value in zip(pairs, values.tolist(), strict=True):
        assert value == pytest.approx(eval(expected, {"math": math}), rel=1e-6), code.strip()
