"""Counters of kernels that are small enough to count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import mlx.core as mx
import pytest

from convjit import simulator

COUNTED = [f.name for f in fields(simulator.Counters) if f.name not in ("threads", "buffers")]


def count(body: str, inputs: Sequence[mx.array], check: bool = True, **options: Any) -> simulator.Counters | None:
    """The counters of a kernel of 128 threads, 64 a threadgroup, that reads `a`, `b`, ... and writes 128 floats."""
    source = f"uint g = thread_position_in_grid.x; uint l = thread_index_in_threadgroup;\n{body}"
    kernel = mx.fast.metal_kernel("test", list("abcd"[: len(inputs)]), ["y"], source)
    sizes: dict[str, Any] = {"grid": (128, 1, 1), "threadgroup": (64, 1, 1), "output_shapes": [(128,)]}
    trace = simulator.capture(
        lambda *arrays: kernel(inputs=list(arrays), output_dtypes=[mx.float32], **sizes | options), *inputs
    )
    done = simulator.execute(trace.launches[0], inputs, check=check)
    assert done.findings == ()
    return done.counters


F32, F16 = mx.arange(128, dtype=mx.float32), mx.arange(128, dtype=mx.float16)


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ("y[g] = a[g];", [F32], {"device_bytes_read": 128 * 4, "device_bytes_written": 128 * 4}),
        ("y[g] = float(a[g]);", [F16], {"device_bytes_read": 128 * 2, "device_bytes_written": 128 * 4}),
        (
            "y[g] = a[g] * b + c[l % 2u];",
            [F32, mx.array(2.0), mx.array([1.0, 2.0])],
            {"device_bytes_read": 512, "device_bytes_written": 512, "constant_bytes_read": 2 * 128 * 4},
        ),
        (
            "if (l < 16u) { uint i = g / 64u * 16u + l; ((device float4*)y)[i] = ((const device float4*)a)[i]; }",
            [F32],
            {"device_bytes_read": 512, "device_bytes_written": 512},
        ),
        (
            """
            threadgroup float s[64];
            threadgroup half t[3];
            if (l < 3u) { t[l] = half(0.0f); }
            s[l] = float(l);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            y[g] = s[63u - l];
            threadgroup_barrier(mem_flags::mem_none);
            """,
            [],
            {
                "device_bytes_written": 512,
                "threadgroup_bytes_written": 2 * (64 * 4 + 3 * 2),
                "threadgroup_bytes_read": 2 * 64 * 4,
                "barriers": 2 * 2,
                "threadgroup_memory": 64 * 4 + 3 * 2,
            },
        ),
        (
            "float v = float(l); v = simd_sum(v) + simd_shuffle_xor(v, ushort(1));\n"
            "simdgroup_barrier(mem_flags::mem_none); y[g] = simd_any(v > 1.0f) ? 1.0f : 0.0f;",
            [],
            {"device_bytes_written": 512, "collectives": 4 * 3},
        ),
        (
            "float v = metal::fma(float(l), 2.0f, 1.0f); float4 w = fma(float4(v), float4(2.0f), float4(1.0f));\n"
            "y[g] = l == 0u ? fma(v, v, v) : w.y;",
            [],
            {"device_bytes_written": 512, "fma_operations": 128 * 5 + 2},
        ),
        (
            """
            simdgroup_matrix<half, 8, 8> left;
            simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            simdgroup_load(left, a + 64u * (g / 64u), 8);
            for (int i = 0; i < 3; ++i) { simdgroup_multiply_accumulate(sum, left, left, sum); }
            if (simdgroup_index_in_threadgroup == 0u) { simdgroup_store(sum, y + 64u * (g / 64u), 8); }
            """,
            [F16],
            {"device_bytes_read": 4 * 64 * 2, "device_bytes_written": 2 * 64 * 4, "mma_operations": 4 * 3},
        ),
    ],
)
def test_counters(body: str, inputs: list[mx.array], expected: dict[str, int]) -> None:
    counters = count(body, inputs)
    assert counters is not None
    assert {n: getattr(counters, n) for n in COUNTED} == dict.fromkeys(COUNTED, 0) | expected
    assert counters.threads == 64
    assert counters.buffers == len(inputs) + 1


def test_none_without_the_checker() -> None:
    assert count("y[g] = a[g];", [F32], check=False) is None
