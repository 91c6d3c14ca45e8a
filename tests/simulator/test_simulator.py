"""Hand-written Metal kernels on the host: what a correct one computes, and what is said about a wrong one."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from convjit import simulator

X = mx.arange(128, dtype=mx.float32)


def run(body: str, *inputs: mx.array, header: str = "", out: tuple[int, ...] = (128,), **options: Any) -> np.ndarray:
    """Run a kernel of 128 threads, 64 a threadgroup, that reads `a`, `b`, ... and writes `y`."""
    dtype = options.pop("dtype", mx.float32)
    kernel = simulator.metal_kernel(
        name="test",
        input_names=list("abcd"[: len(inputs)]),
        output_names=["y"],
        source=f"uint g = thread_position_in_grid.x; uint l = thread_index_in_threadgroup;\n{body}",
        header=header,
        **{k: options.pop(k) for k in ("atomic_outputs", "ensure_row_contiguous", "check") if k in options},
    )
    launch = {"grid": (128, 1, 1), "threadgroup": (64, 1, 1), "output_shapes": [out], "output_dtypes": [dtype]}
    (y,) = kernel(inputs=inputs, **launch | options)
    return np.array(y.astype(mx.float32) if y.dtype == mx.bfloat16 else y)


def test_barrier_and_threadgroup_memory() -> None:
    body = """
        threadgroup float tile[2][64];
        tile[l % 2u][l] = a[g];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[g] = tile[(63u - l) % 2u][63u - l];
    """
    np.testing.assert_array_equal(run(body, X), np.arange(128).reshape(2, 64)[:, ::-1].ravel())


def test_a_threadgroup_does_not_see_the_memory_of_the_one_before() -> None:
    body = """
        threadgroup float seen[1];
        y[g] = seen[0];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        seen[0] = 1.0f;
    """
    assert np.isnan(run(body, X)).all()


def test_barriers_in_a_loop_with_a_threadgroup_pointer() -> None:
    body = """
        threadgroup float tile[64];
        threadgroup float* mine = tile + l;
        *mine = a[g];
        for (uint step = 32u; step > 0u; step /= 2u) {
          threadgroup_barrier(mem_flags::mem_threadgroup);
          if (l < step) {
            *mine += tile[l + step];
          }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[g] = tile[0];
    """
    sums = np.arange(128).reshape(2, 64).sum(axis=1)
    np.testing.assert_array_equal(run(body, X), np.repeat(sums, 64))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("simd_sum(v)", lambda v: v.sum(1, keepdims=True)),
        ("simd_max(v)", lambda v: v.max(1, keepdims=True)),
        ("simd_min(v)", lambda v: v.min(1, keepdims=True)),
        ("simd_shuffle_xor(v, ushort(5))", lambda v: v[:, np.arange(32) ^ 5]),
        ("simd_shuffle_down(v, ushort(2))", lambda v: np.concatenate([v[:, 2:], v[:, 30:]], 1)),
        ("simd_broadcast(v, ushort(7))", lambda v: v[:, 7:8]),
        ("simd_prefix_inclusive_sum(v)", lambda v: v.cumsum(1)),
        ("simd_prefix_exclusive_sum(v)", lambda v: v.cumsum(1) - v),
        ("simd_any(v == 40.0f) ? 1.0f : 0.0f", lambda v: (v == 40).any(1, keepdims=True)),
        ("simd_all(v < 64.0f) ? 1.0f : 0.0f", lambda v: (v < 64).all(1, keepdims=True)),
    ],
)
def test_collectives(call: str, expected: Any) -> None:
    lanes = np.arange(128).reshape(4, 32)
    wanted = np.broadcast_to(expected(lanes), lanes.shape).ravel()
    np.testing.assert_array_equal(run(f"float v = a[g]; y[g] = {call};", X), wanted)


@pytest.mark.parametrize(("dtype", "name"), [(mx.float32, "float"), (mx.float16, "half"), (mx.bfloat16, "bfloat16_t")])
def test_simdgroup_matrix(dtype: mx.Dtype, name: str) -> None:
    body = f"""
        simdgroup_matrix<{name}, 8, 8> left, right;
        simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
        simdgroup_load(left, a, 8);
        simdgroup_load(right, b, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(sum, left, right, sum);
        simdgroup_store(sum, y + simdgroup_index_in_threadgroup * 64u, 8);
    """
    left, right = (mx.random.randint(-4, 5, (8, 8), key=mx.random.key(i)).astype(dtype) for i in range(2))
    y = run(body, left, right, header="#include <metal_simdgroup_matrix>\n", grid=(64, 1, 1))
    expected = np.array(left.astype(mx.float32)) @ np.array(right.astype(mx.float32)).T + 1
    np.testing.assert_array_equal(y.reshape(2, 8, 8), [expected] * 2)


def test_lanes_of_a_matrix() -> None:
    """Lane 0 holds the first two elements of row 0, lane 31 the last two of row 7."""
    body = """
        simdgroup_matrix<float, 8, 8> m;
        simdgroup_load(m, a, 8);
        y[2u * g] = m.thread_elements()[0];
        y[2u * g + 1u] = m.thread_elements()[1];
    """
    y = run(body, X[:64], grid=(32, 1, 1), out=(64,))
    assert y[:2].tolist() == [0, 1] and y[-2:].tolist() == [62, 63]
    assert sorted(y.tolist()) == list(range(64))


def test_atomics() -> None:
    body = """
        if (l == 0u) {
          atomic_store_explicit(&y[g / 64u], 0, memory_order_relaxed);
        }
        threadgroup_barrier(mem_flags::mem_device);
        atomic_fetch_add_explicit(&y[g / 64u], int(a[g]), memory_order_relaxed);
    """
    y = run(body, X, out=(2,), dtype=mx.int32, atomic_outputs=True)
    assert y.tolist() == [sum(range(64)), sum(range(64, 128))]


def test_positions_of_a_grid_that_threadgroups_do_not_divide() -> None:
    """The last threadgroup of an axis is smaller, as in Metal."""
    body = """
        uint3 p = thread_position_in_grid;
        uint at = (p.z * 3u + p.y) * 5u + p.x;
        y[at] = float(threadgroup_position_in_grid.x * 100u + thread_position_in_threadgroup.x * 10u
                      + threads_per_threadgroup.x);
    """
    y = run(body, X, grid=(5, 3, 2), threadgroup=(4, 2, 1), out=(2, 3, 5))
    np.testing.assert_array_equal(y, np.broadcast_to([4, 14, 24, 34, 101], (2, 3, 5)))


def test_shapes_strides_scalars_and_constants() -> None:
    body = "y[g] = float(a_shape[1]) + float(a_strides[0]) * 10.0f + float(a_ndim) * 100.0f + b * 1000.0f + c[2];"
    y = run(body, mx.zeros((2, 3, 4)), mx.array(7.0), mx.array([1.0, 2.0, 0.5]), out=(128,))
    assert (y == 3 + 120 + 300 + 7000 + 0.5).all()


def test_non_contiguous_inputs_are_copied() -> None:
    x = mx.arange(128, dtype=mx.float32).reshape(8, 16).T
    np.testing.assert_array_equal(run("y[g] = a[g];", x), np.array(x).ravel())


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_non_contiguous_inputs_as_they_are(dtype: mx.Dtype) -> None:
    x = mx.arange(512, dtype=mx.float32).reshape(16, 32)[::-2, 3:19].astype(dtype)
    body = "y[g] = float(a[long(g / 16u) * a_strides[0] + long(g % 16u) * a_strides[1]]);"
    expected = np.array(x.astype(mx.float32)).ravel()
    for array in (x, mx.broadcast_to(x[:1], (8, 16)), x.T.reshape(8, 16).T.reshape(8, 16)):
        expected = np.array(array.astype(mx.float32)).ravel()
        np.testing.assert_array_equal(run(body, array, ensure_row_contiguous=False, check=True), expected)


def test_init_value() -> None:
    body = "if (g % 2u == 0u) { y[g] += 1.0f; }"
    np.testing.assert_array_equal(run(body, X, init_value=2.5, check=True), np.tile([3.5, 2.5], 64))


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    run("y[g] = a[g];", X, verbose=True)
    assert "[[kernel]] void custom_kernel_test" in capsys.readouterr().out


def test_python_numbers_as_inputs() -> None:
    assert (run("y[g] = a * 10.0f + float(b) + (c ? 0.5f : 0.0f);", 3.0, 4, True) == 34.5).all()


def test_attributes_of_other_types() -> None:
    text = """
        [[kernel]] void k(device float* y [[buffer(0)]], constant int& n, ushort2 p [[thread_position_in_grid]],
                          ushort lane [[thread_index_in_simdgroup]], uint g [[threadgroup_position_in_grid]]) {
          y[p.y * 32 + p.x] = float(int(lane) + n + 100 * int(g));
        }
    """
    launch = simulator.Launch("k", text, (32, 2, 1), (32, 2, 1), ("n",), (("y", (2, 32), mx.float32),))
    done = simulator.execute(launch, [mx.array(7)], check=True)
    assert done.findings == ()
    np.testing.assert_array_equal(np.array(done.outputs[0]), [np.arange(32) + 7.0] * 2)


def test_kernels_that_run_at_the_same_time() -> None:
    with ThreadPoolExecutor(4) as pool:
        rows = pool.map(lambda i: run(f"y[g] = a[g] * {i}.0f + simd_sum(0.0f);", X), range(8))
        np.testing.assert_array_equal(list(rows), np.arange(8)[:, None] * np.arange(128))


def test_a_loop_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVJIT_SIMULATOR_TIMEOUT", "1")
    body = "volatile uint i = 1u; while (i > 0u) { i = g == 3u ? 1u : 0u; } y[g] = 0.0f;"
    with pytest.raises(simulator.KernelError, match=r"still running after 1 seconds, now thread \(3, 0, 0\)"):
        run(body, X)
    monkeypatch.setenv("CONVJIT_SIMULATOR_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="CONVJIT_SIMULATOR_TIMEOUT is 'soon'"):
        run("y[g] = 0.0f;", X)


def test_a_malformed_signature() -> None:
    """MLX writes it for several outputs where the body has no thread attribute."""
    kernel = simulator.metal_kernel("bad", ["a"], ["y", "z"], "y[0] = a[0]; z[0] = float(a_shape[0]);")
    with pytest.raises(ValueError, match="use a thread attribute"):
        kernel(
            inputs=[X], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)] * 2, output_dtypes=[mx.float32] * 2
        )


def test_templates() -> None:
    y = run("y[g] = T(a[g]) * T(N);", X, template=[("T", mx.float16), ("N", 3)])
    np.testing.assert_array_equal(y, np.arange(128) * 3)


@pytest.mark.parametrize(("dtype", "name"), [(mx.float16, "half"), (mx.bfloat16, "bfloat16_t")])
def test_rounding_to_half_types(dtype: mx.Dtype, name: str) -> None:
    x = np.array(
        [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 65519, 65520, 1e-7, 3.4e38, np.inf, -np.inf, np.nan], np.float32
    )
    y = run(f"if (g < 10u) {{ y[g] = {name}(a[g]); }}", mx.array(x), out=(10,), dtype=dtype)
    np.testing.assert_array_equal(y.astype(np.float32), np.array(mx.array(x).astype(dtype).astype(mx.float32)))


def test_vectors() -> None:
    body = """
        float4 v = float4(a[g], 1.0f, 2.0f, 3.0f);
        v += float4(0.5f);
        float2 w = v.xy + v.zw * 2.0f;
        y[g] = dot(w, float2(1.0f, 10.0f)) + float(as_type<uint>(1.0f) >> 23);
    """
    np.testing.assert_array_equal(run(body, X), np.arange(128) + 0.5 + 5 + 10 * (1.5 + 7) + 127)


def test_several_kernels_and_results() -> None:
    kernel = mx.fast.metal_kernel(
        name="two",
        input_names=["a"],
        output_names=["y", "z"],
        source="uint g = thread_position_in_grid.x; y[g] = a[g] + 1.0f; z[g] = -a[g];",
    )

    def twice(a: mx.array) -> list[mx.array]:
        launch: dict[str, Any] = {
            "grid": (128, 1, 1),
            "threadgroup": (64, 1, 1),
            "output_shapes": [(128,)] * 2,
            "output_dtypes": [mx.float32] * 2,
        }
        y, z = kernel(inputs=[a], **launch)
        return [a, *kernel(inputs=[y], **launch), z]

    a, y, z, first_z = (np.array(r) for r in simulator.run(twice, X))
    np.testing.assert_array_equal([a, y, z, first_z], [a, a + 2, -a - 1, -a])


def test_what_is_not_written_is_nan() -> None:
    y = run("if (g != 5u) { y[g] = a[g]; }", X)
    assert np.flatnonzero(np.isnan(y)).tolist() == [5]


def test_compile_errors_quote_the_line() -> None:
    with pytest.raises(simulator.CompileError) as raised:
        run("// a comment\ny[g] = a[g] + missing;", X, header="// one more line\n")
    assert "missing" in str(raised.value)
    assert "y[g] = a[g] + missing;" in str(raised.value)
    (line,) = [n for n in range(20) if f"kernel.metal:{n}:" in str(raised.value)]
    assert line == 9  # header, six lines of signature, the line of `g` and `l`, the comment
    assert "simulator_entry" not in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        "bfloat16_t v = 1.0f; y[g] = float(v);",
        "half v = half(a[g]); y[g] = max(v, 0.0f);",
        "float4 v = float4(a[g], 1.0f); y[g] = v.x;",
        "simdgroup_matrix<float, 4, 4> m; y[g] = 1.0f;",
        "simdgroup_matrix<half, 8, 8> m; simdgroup_load(m, a, 8); y[g] = 1.0f;",
        "threadgroup_barrier(2); y[g] = 1.0f;",
        "a[g] = 1.0f; y[g] = 1.0f;",
        "y[g] = erf(a[g]);",
    ],
)
def test_rejected_as_in_metal(body: str) -> None:
    with pytest.raises(simulator.CompileError):
        run(body, X)


@pytest.mark.parametrize("declaration", ["threadgroup float s[4] = {0.0f}", "threadgroup float s = 0.0f"])
def test_threadgroup_variables_have_no_initialiser(declaration: str) -> None:
    with pytest.raises(ValueError, match=r"kernel\.metal:7: .*has no initialiser"):
        run(f"{declaration}; y[g] = a[0];", X)


def test_threadgroup_variables_wherever_metal_takes_them() -> None:
    header = """
        struct cj_pair { float first; float second; };
        constant constexpr uint cj_count = 32;
        inline float cj_other(threadgroup const cj_pair* pairs, uint at) { return pairs[at ^ 1u].second; }
    """
    body = """
        #define SIZE 64
        threadgroup cj_pair pairs[SIZE];
        threadgroup float left[cj_count * 2], right[2][(cj_count)];
        { threadgroup alignas(16) float4 inner; if (l == 0u) { inner = float4(1.0f, 2.0f, 3.0f, 4.0f); }
          threadgroup_barrier(mem_flags::mem_threadgroup); left[l] = inner.z; }
        pairs[l].first = 0.0f; pairs[l].second = a[g]; right[l / 32u][l % 32u] = a[g];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[g] = cj_other(pairs, l) + left[l] * 1000.0f + right[0][l % 32u] - right[0][l % 32u];
    """
    np.testing.assert_array_equal(run(body, X, header=header, check=True), (np.arange(128) ^ 1) + 3000.0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "if (l >= 40u) { return; } threadgroup_barrier(mem_flags::mem_none); y[g] = 1.0f;",
            r"kernel.metal:7: only 40 of 64 threads reach the barrier: thread \(39, 0, 0\) does",
        ),
        (
            "if (l < 40u) { threadgroup_barrier(mem_flags::mem_none); }\n"
            "else { threadgroup_barrier(mem_flags::mem_none); } y[g] = 1.0f;",
            r"kernel.metal:8: threads of one threadgroup wait at different barriers: .* in line 7",
        ),
        ("if (l % 2u == 0u) { y[g] = simd_sum(a[g]); }", "kernel.metal:7: simd_sum is not reached by every lane"),
        ("y[g] = (l % 2u == 0u) ? simd_sum(a[g]) : simd_max(a[g]);", "lanes of one simdgroup wait in"),
        (
            "threadgroup float s[8193]; s[l] = a[g]; y[g] = s[l];",
            "32772 bytes of threadgroup memory, `s` being the latest: the limit",
        ),
        pytest.param(
            "y[g] = float(int(a[g]) / (int(g) - 9));",
            r"thread \(9, 0, 0\) divides by zero",
            marks=pytest.mark.skipif(platform.machine() in ("aarch64", "arm64"), reason="it is 0 there"),
        ),
        ("if (g == 9u) { __builtin_trap(); } y[g] = 0.0f;", r"thread \(9, 0, 0\) runs into a trap"),
        (
            "volatile float v[99999]; v[g] = a[g]; y[g] = simd_sum(v[g]);",
            "more variables than its stack of 262144 bytes holds",
        ),
        ("y[g + 128u] = a[g];", r"thread \(0, 0, 0\) touches `y`\[128\], which has 128 elements"),
        ("y[g] = a[g == 9u ? 100000u : g];", r"thread \(9, 0, 0\) touches `a`\[100000\], which has 128 elements"),
        (
            "y[g] = *(device float*)(ulong(g) + 12345678ul);",
            r"thread \(0, 0, 0\) touches memory outside of every array",
        ),
        (
            "device float* p = (device float*)a; p[g] = 1.0f; y[g] = 0.0f;",
            r"thread \(0, 0, 0\) writes `a`\[0\], an input",
        ),
    ],
)
def test_what_no_kernel_may_do(body: str, message: str) -> None:
    with pytest.raises(simulator.KernelError, match=message):
        run(body, X)
    np.testing.assert_array_equal(run("y[g] = simd_max(a[g]) + 0.0f * a[g];", X)[:32], 31)  # and life goes on


def test_too_many_threads() -> None:
    with pytest.raises(simulator.KernelError, match="a threadgroup of 2048 threads: the limit is 1024"):
        run("y[g] = 1.0f;", X, grid=(2048, 1, 1), threadgroup=(2048, 1, 1))


def test_other_primitives_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="also runs Exp"):
        simulator.run(lambda a: [mx.exp(a)], X)
