"""What the checker finds in wrong kernels, and in which line; corpus/ has whole kernels, right and wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest

from convjit import simulator
from convjit.simulator import compiler

X = mx.arange(128, dtype=mx.float32)


def capture(body: str, grid: int = 128, threads: int = 64) -> simulator.Launch:
    """A launch of 128 threads, 64 a threadgroup, that read `x` and write `y`."""
    kernel = mx.fast.metal_kernel(
        name="test",
        input_names=["x"],
        output_names=["y"],
        source=f"uint g = thread_position_in_grid.x; uint l = thread_index_in_threadgroup;\n{body}",
        header="inline float cj_other(threadgroup float* p, uint at) {\n  return p[at ^ 1u];  // <-\n}\n",
    )
    trace = simulator.capture(
        lambda x: kernel(
            inputs=[x],
            grid=(grid, 1, 1),
            threadgroup=(threads, 1, 1),
            output_shapes=[(128,)],
            output_dtypes=[mx.float32],
        ),
        X,
    )
    return trace.launches[0]


def findings(launch: simulator.Launch) -> Sequence[simulator.Finding]:
    return simulator.execute(launch, [X], check=True).findings


LOADED = "threadgroup float s[64];\ns[l] = x[g];\n"
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
ATOMIC = "threadgroup atomic_uint s;\nif (l == 0u) { atomic_store_explicit(&s, 0u, memory_order_relaxed); }\n"
MATRIX = "simdgroup_matrix<float, 8, 8> m = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);\n"

# A body, and what must be found in its lines marked with "// <-".
WRONG = {
    "read past the end": (
        f"{LOADED}{BARRIER}threadgroup float* p = s;\ny[g] = p[l + 1u];  // <-",
        [r"out of bounds: thread \(63, 0, 0\) reads 4 bytes at `s`\[64\], which has 64 elements"],
    ),
    "index past the end": (
        f"{LOADED}{BARRIER}y[g] = s[l + 1u];  // <-",
        [r"out of bounds: thread \(63, 0, 0\) takes element 64 of an array"],
    ),
    "write past the end": (
        "y[g + 100u] = x[g];  // <-",
        [r"out of bounds: thread \(28, 0, 0\) writes 4 bytes at `y`\[128\], which has 128 elements"],
    ),
    "read before the start": (
        "y[g] = x[int(g) - 1];  // <-",
        [r"out of bounds: thread \(0, 0, 0\) reads 4 bytes at `x`\[-1\]"],
    ),
    "array of a thread": (
        "float q[4];\nfor (int i = 0; i < 4; ++i) { q[i] = x[g]; }\ny[g] = q[l % 5u];  // <-",
        [r"out of bounds: thread \(4, 0, 0\) takes element 4 of an array 'float ?\[4\]'"],
    ),
    "write to an input": (
        "device float* p = (device float*)x;\np[g] = 1.0f;  // <-\ny[g] = 1.0f;",
        [r"read-only: thread \(0, 0, 0\) writes `x`\[0\], an input"],
    ),
    "no barrier": (
        "threadgroup float s[64];\ns[l] = x[g];  // <-\ny[g] = s[63u - l];  // <-",
        [
            r"uninitialised: thread \(0, 0, 0\) reads `s`\[63\]",
            r"race: thread \(32, 0, 0\) writes `s`\[32\], which thread \(31, 0, 0\) read in line 12: no barrier",
            r"race: thread \(32, 0, 0\) reads `s`\[31\], which thread \(31, 0, 0\) wrote in line 11: no barrier",
        ],
    ),
    "no barrier in a simdgroup": (
        "threadgroup float s[64];\ns[l] = x[g];  // <-\ny[g] = s[l ^ 1u];  // <-",
        [
            r"race: thread \(1, 0, 0\) writes `s`\[1\], which thread \(0, 0, 0\) read",
            r"race: thread \(1, 0, 0\) reads `s`\[0\], which thread \(0, 0, 0\) wrote",
        ],
    ),
    "a collective is no barrier": (
        f"{LOADED}float t = simd_sum(x[g]);\ny[g] = s[l ^ 1u] + t;  // <-",
        [r"race: thread \(31, 0, 0\) reads `s`\[30\], which thread \(30, 0, 0\) wrote in line 11"],
    ),
    "a barrier of the simdgroup for the threadgroup": (
        f"{LOADED}simdgroup_barrier(mem_flags::mem_threadgroup);\ny[g] = s[l ^ 32u];  // <-",
        [r"race: thread \(\d+, 0, 0\) reads `s`"],
    ),
    "a barrier for other memory": (
        f"{LOADED}threadgroup_barrier(mem_flags::mem_device);\ny[g] = s[63u - l];  // <-",
        ["race: .* reads `s`.*no barrier for threadgroup memory"],
    ),
    "a barrier for no memory": (
        f"{LOADED}simdgroup_barrier(mem_flags::mem_none);\ny[g] = s[l ^ 1u];  // <-",
        ["race: .* reads `s`"],
    ),
    "written before all have read": (
        f"{LOADED}{BARRIER}float v = s[63u - l];\ns[l] = v;  // <-\ny[g] = v;",
        [r"race: thread \(32, 0, 0\) writes `s`\[32\], which thread \(31, 0, 0\) read in line 13"],
    ),
    "a vector": (
        f"threadgroup float4 s[64];\ns[l] = float4(0.0f);\n{BARRIER}s[(l + 1u) % 64u] = float4(1.0f);  // <-\n"
        "s[l] += float4(x[g]);  // <-\ny[g] = 1.0f;",
        ["race: .* reads .*`s`.* wrote in line 13", "race: .* writes .*`s`"],
    ),
    "bytes": (
        f"threadgroup uchar s[64];\ns[l] = uchar(l);\n{BARRIER}s[l / 2u] = uchar(1);  // <-\ny[g] = 1.0f;",
        [r"race: thread \(1, 0, 0\) writes `s`\[0\]"],
    ),
    "in a function": (f"{LOADED}y[g] = cj_other(s, l);", ["race: .* reads `s`", "uninitialised: .* reads `s`"]),
    "a matrix": (
        f"threadgroup float s[128];\ns[l] = 0.0f;\ns[64u + l] = 1.0f;\n{MATRIX}"
        "simdgroup_load(m, s + 64u * simdgroup_index_in_threadgroup, 8);  // <-\ny[g] = m.thread_elements()[0];",
        ["race: .* reads `s`.* wrote in line 1[12]", "uninitialised"],
    ),
    "two writers": (
        "y[g] = 0.0f;\nthreadgroup_barrier(mem_flags::mem_device);\ny[g - g % 2u] = x[g];  // <-",
        [r"race: thread \(1, 0, 0\) writes `y`\[0\], which thread \(0, 0, 0\) wrote in line 12"],
    ),
    "two threadgroups write": (
        "y[g] = 0.0f;\nif (g == 64u) {\n  y[3] = 1.0f;  // <-\n}",
        [r"race: thread \(64, 0, 0\) writes `y`\[3\], which a thread of another threadgroup wrote in line 10"],
    ),
    "read from another threadgroup": (
        "y[g] = x[g];\nif (g >= 64u) {\n  y[g] += y[g - 64u];  // <-\n}",
        [r"race: thread \(64, 0, 0\) reads `y`\[0\], which a thread of another threadgroup .*nothing orders"],
    ),
    "device memory behind a barrier for threadgroup memory": (
        f"y[g] = x[g];\n{BARRIER}if (l == 0u) {{\n  y[g] += y[g + 1u];  // <-\n}}",
        [r"race: thread \(0, 0, 0\) reads `y`\[1\], .*no barrier for device memory"],
    ),
    "an atomic and a plain access": (
        f"{ATOMIC}{BARRIER}"
        "atomic_fetch_add_explicit(&s, 1u, memory_order_relaxed);  // <-\n"
        "y[g] = float(*(threadgroup uint*)(&s));  // <-",
        ["race: .* reads `s`.* wrote in line 13", "race: .* writes `s`.* read in line 14"],
    ),
    "uninitialised": (
        f"threadgroup float s[64];\nif (l != 9u) {{ s[l] = x[g]; }}\n{BARRIER}y[g] = s[63u - l];  // <-",
        [r"uninitialised: thread \(54, 0, 0\) reads `s`\[9\], which nobody has written \(2 times\)"],
    ),
    "the memory of the threadgroup before": (
        f"threadgroup float s[64];\nif (g < 64u) {{ s[l] = x[g]; }}\n{BARRIER}y[g] = s[63u - l];  // <-",
        [r"uninitialised: thread \(64, 0, 0\) reads `s`\[63\]"],
    ),
    "an output that was not written": ("y[g] += x[g];  // <-", [r"uninitialised: thread \(0, 0, 0\) reads `y`\[0\]"]),
    "an early return": (
        "if (l >= 40u) { return; }\nthreadgroup_barrier(mem_flags::mem_none);  // <-\ny[g] = 1.0f;",
        ["only 40 of 64 threads reach the barrier"],
    ),
    "a barrier in a loop": (
        "for (uint i = 0; i < (l < 32u ? 2u : 3u); ++i) {\n  threadgroup_barrier(mem_flags::mem_none);  // <-\n}\n"
        "y[g] = 1.0f;",
        ["only 32 of 64 threads reach the barrier"],
    ),
    "two barriers": (
        f"if (l < 32u) {{\n{BARRIER}}} else {{\n  threadgroup_barrier(mem_flags::mem_none);  // <-\n}}\ny[g] = 1.0f;",
        [r"threads of one threadgroup wait at different barriers: thread \(32, 0, 0\) here, .* in line 11"],
    ),
    "a collective in a branch": (
        "float v = 0.0f;\nif (l % 2u == 1u) {\n  v = simd_sum(x[g]);  // <-\n}\ny[g] = v;",
        ["simd_sum is not reached by every lane of its simdgroup: by 16 of 32"],
    ),
    "different collectives": (
        "y[g] = l % 2u == 0u ? simd_sum(x[g]) : simd_max(x[g]);  // <-",
        ["lanes of one simdgroup wait in different places: .* in simd_max here, .* in simd_sum"],
    ),
    "a product of matrices in a branch": (
        f"{MATRIX}if (l < 16u) {{\n  simdgroup_multiply_accumulate(m, m, m, m);  // <-\n}}\n"
        "y[g] = m.thread_elements()[0];",
        ["simdgroup_multiply_accumulate is not reached by every lane"],
    ),
    "a matrix that some lanes load": (
        f"{MATRIX}if (l < 16u) {{\n  simdgroup_load(m, x, 8);  // <-\n}}\ny[g] = m.thread_elements()[0];",
        [r"simdgroup_load is not reached by every lane of its simdgroup: by thread \(0, 0, 0\)"],
    ),
    "a misaligned store": (
        "*(device float4*)(y + g) = float4(1.0f);  // <-",
        [r"misaligned: thread \(1, 0, 0\) takes `y`\[1\] for a type that lies at multiples of 16 bytes"],
    ),
    "overflow": (
        "int i = 2147483600 + int(g);  // <-\ny[g] = float(i);",
        [r"undefined: thread \(48, 0, 0\) adds to more than fits into 'int' \(80 times\)"],
    ),
    "a shift": ("y[g] = float(1u << (g + 31u));  // <-", ["shifts by at least as many bits as there are in"]),
    "division by zero": (
        "y[g] = float(int(g) / (int(g) - 3));  // <-",
        [r"undefined: thread \(3, 0, 0\) divides by zero"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kernels(name: str) -> None:
    body, messages = WRONG[name]
    launch = capture(body)
    marked = [n for n, line in enumerate(launch.text.splitlines(), 1) if line.endswith("// <-")]
    found = findings(launch)
    for message in messages:
        lines = [f.line for f in found if re.search(message, f.message)]
        assert set(lines) & set(marked), f"no {message!r} in lines {marked} in {found}"


@pytest.mark.skipif("clang" in compiler._version(), reason="clang splits the load before it is reported")
def test_a_misaligned_load() -> None:
    (found,) = findings(capture("float4 v = *(const device float4*)(x + 1);\ny[g] = v.x;"))
    assert "misaligned: thread (0, 0, 0) takes `x`[1]" in found.message


def test_outputs_that_are_not_written() -> None:
    launch = capture("if (g != 7u) { y[g] = x[g]; }")
    (found,) = findings(launch)
    assert found.message == "unwritten: 1 of 128 elements of the output `y` are never written, the first is [7]"
    assert "device float* y" in launch.text.splitlines()[found.line - 1]
    assert simulator.execute(launch, [X], check=True, init_value=0.0).findings == ()


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (capture("y[g] = 1.0f;", grid=2048, threads=2048), "a threadgroup of 2048 threads: the limit is 1024"),
        (
            capture("y[g] = 1.0f;", threads=96),
            r"the grid \(128, 1, 1\) is not a multiple of the threadgroup \(96, 1, 1\)",
        ),
        (
            capture("threadgroup float s[9000]; s[l] = x[g]; y[g] = s[l];"),
            "36000 bytes of threadgroup memory, `s` being the latest: the limit is 32768",
        ),
    ],
)
def test_limits(launch: simulator.Launch, message: str) -> None:
    (found,) = findings(launch)
    assert re.search(message, found.message)
    assert "void custom_kernel_test" in launch.text.splitlines()[found.line - 1]


def test_too_many_buffers() -> None:
    names = [f"x{i}" for i in range(31)]
    source = f"y[thread_position_in_grid.x] = {' + '.join(f'{n}[0]' for n in names)};"
    kernel = simulator.metal_kernel("many", names, ["y"], source)
    with pytest.raises(simulator.KernelError, match="32 buffers: the limit is 31"):
        kernel(inputs=[X] * 31, grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)], output_dtypes=[mx.float32])


def test_findings_are_merged_and_limited() -> None:
    lines = "".join(f"s[(l / 2u + {i}u) % 64u] = x[g];\n" for i in range(40))
    found = findings(capture(f"threadgroup float s[64];\n{lines}y[g] = 1.0f;"))
    assert len(found) == 20
    assert "times)" in found[0].message


def test_an_error_quotes_the_lines() -> None:
    launch = capture(f"{LOADED}y[g] = s[63u - l];")
    error = simulator.KernelError(launch.name, launch.text, findings(launch))
    assert "\n    y[g] = s[63u - l];" in str(error)
    assert error.findings


RIGHT = {
    "a barrier of the simdgroup": f"{LOADED}simdgroup_barrier(mem_flags::mem_threadgroup);\ny[g] = s[l ^ 1u];",
    "rounds": f"{LOADED}for (uint i = 32u; i > 0u; i /= 2u) {{\n{BARRIER}if (l < i) {{ s[l] += s[l + i]; }}\n}}\n"
    f"{BARRIER}y[g] = s[0];",
    "read by all, then written by one simdgroup": f"{LOADED}{BARRIER}float v = s[l ^ 1u];\n"
    "simdgroup_barrier(mem_flags::mem_threadgroup);\ns[l] = v;\ny[g] = s[l];",
    "device memory": "y[g] = x[g];\nthreadgroup_barrier(mem_flags::mem_device);\nif (l == 0u) { y[g] += y[g + 1u]; }",
    "atomics": f"{ATOMIC}{BARRIER}atomic_fetch_add_explicit(&s, 1u, memory_order_relaxed);\n{BARRIER}"
    "y[g] = float(atomic_load_explicit(&s, memory_order_relaxed));",
    "vectors": f"threadgroup float4 s[64];\ns[l] = float4(x[g]);\n{BARRIER}float4 v = s[63u - l];\n"
    "if (l % 4u == 0u) { *(device float4*)(y + g) = v; }",
    "the whole threadgroup takes a branch": f"{LOADED}if (g >= 64u) {{\n{BARRIER}}}\ny[g] = s[l];",
    "an inner array": "float q[2][4];\nfor (uint i = 0; i < 8u; ++i) { q[i / 4u][i % 4u] = x[g] + float(i); }\n"
    "y[g] = q[l % 2u][l % 4u];",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels(name: str) -> None:
    assert findings(capture(RIGHT[name])) == ()


CONVOLUTION = """
    uint row = threadgroup_position_in_grid.y * 32u;
    uint column = threadgroup_position_in_grid.x * 32u;
    uint l = thread_index_in_threadgroup;
    uint s = simdgroup_index_in_threadgroup;
    threadgroup float left[32 * 20];
    threadgroup float right[32 * 20];
    simdgroup_matrix<float, 8, 8> sum[4];
    for (int i = 0; i < 4; ++i) { sum[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f); }
    uint pixel = row + l / 4u;
    int top = int(pixel / 9u) - 1;
    int side = int(pixel % 9u) - 1;
    for (int tap = 0; tap < 9; ++tap) {
      int h = top + tap / 3;
      int w = side + tap % 3;
      BARRIER_BEFORE
      bool inside = INSIDE;
      for (uint c = l % 4u * 4u; c < l % 4u * 4u + COUNT; ++c) {
        left[l / 4u * 20u + c] = inside ? x[(h * 9 + w) * 16 + int(c)] : 0.0f;
        right[l / 4u * 20u + c] = column + l / 4u < 40u ? weight[((column + l / 4u) * 9u + uint(tap)) * 16u + c] : 0.0f;
      }
      BARRIER_BEHIND
      for (uint k = 0; k < 16u; k += 8u) {
        simdgroup_matrix<float, 8, 8> a;
        simdgroup_load(a, left + s * 8u * 20u + k, 20);
        for (uint j = 0; j < 4u; ++j) {
          simdgroup_matrix<float, 8, 8> b;
          simdgroup_load(b, right + j * 8u * 20u + k, 20, ulong2(0, 0), true);
          simdgroup_multiply_accumulate(sum[j], a, b, sum[j]);
        }
      }
    }
    uint lane = thread_index_in_simdgroup;
    uint m = row + s * 8u + (lane / 4u & 4u) + lane / 2u % 4u;
    for (uint j = 0; j < 4u; ++j) {
      uint n = column + j * 8u + (lane / 4u & 2u) * 2u + lane % 2u * 2u;
      for (uint i = 0; i < 2u; ++i) {
        if (STORED && n + i < 40u) { y[m * 40u + n + i] = sum[j].thread_elements()[i]; }
      }
    }
"""
CORRECT = {
    "BARRIER_BEFORE": BARRIER,
    "BARRIER_BEHIND": BARRIER,
    "INSIDE": "pixel < 81u && h >= 0 && h < 9 && w >= 0 && w < 9",
    "COUNT": "4u",
    "STORED": "m < 81u",
}


def convolution(**changes: str) -> tuple[np.ndarray, simulator.Execution]:
    """A 3x3 convolution, 9x9x16 -> 9x9x40, as a product of matrices in tiles of 32 by 32; and what it should be."""
    source = CONVOLUTION
    for name, text in (CORRECT | changes).items():
        source = source.replace(name, text)
    kernel = mx.fast.metal_kernel("conv", ["x", "weight"], ["y"], source)
    x, weight = (mx.random.normal(shape, key=mx.random.key(0)) for shape in [(1, 9, 9, 16), (40, 3, 3, 16)])
    trace = simulator.capture(
        lambda *arrays: kernel(
            inputs=list(arrays),
            grid=(2 * 128, 3, 1),
            threadgroup=(128, 1, 1),
            output_shapes=[(1, 9, 9, 40)],
            output_dtypes=[mx.float32],
        ),
        x,
        weight,
    )
    expected = mx.conv2d(x, weight, padding=1, stream=mx.cpu)
    return np.array(expected), simulator.execute(trace.launches[0], [x, weight], check=True)


def test_a_right_convolution() -> None:
    expected, done = convolution()
    assert done.findings == ()
    np.testing.assert_allclose(np.array(done.outputs[0]), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"BARRIER_BEFORE": ""}, "race: .* writes `left`.* read in line"),
        ({"BARRIER_BEHIND": ""}, "race: .* reads `left`.* wrote in line"),
        ({"BARRIER_BEHIND": f"if (l < 64u) {{ {BARRIER} }}"}, "threads of one threadgroup wait at different barriers"),
        ({"BARRIER_BEHIND": "simdgroup_barrier(mem_flags::mem_threadgroup);"}, "race: .* reads `right`"),
        ({"INSIDE": "pixel < 81u"}, r"out of bounds: .* `x`\[-160\]"),
        ({"COUNT": "3u"}, r"uninitialised: .* reads `left`\[3\]"),
        ({"STORED": "m < 81u && m != 5u"}, r"unwritten: 40 of 3240 elements .* the first is \[200\]"),
        ({"STORED": "m < 82u"}, r"out of bounds: .* writes 4 bytes at `y`\[3240\]"),
    ],
)
def test_wrong_convolutions(changes: dict[str, str], message: str) -> None:
    _, done = convolution(**changes)
    assert any(re.search(message, f.message) for f in done.findings), done.findings
