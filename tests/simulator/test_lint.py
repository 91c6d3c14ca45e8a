"""Each rule of the lint against the snippet that it is for, and against what it must leave alone."""

from __future__ import annotations

import pytest

from convjit.simulator import lint

ATTRIBUTE = ",\n  uint3 thread_position_in_grid [[thread_position_in_grid]]"


def kernel(body: str, before: str = "", arguments: str = ATTRIBUTE) -> str:
    return (
        f"{before}\n[[kernel]] void custom_kernel_k(\n  const device float* x [[buffer(0)]],\n"
        f"  device float* y [[buffer(1)]]{arguments}) {{\n  uint i = thread_position_in_grid.x;\n{body}\n}}\n"
    )


@pytest.mark.parametrize(
    ("body", "before"),
    [
        ("y[i] = x[i] * 2.0f + 1e-5f + float(0x1fe);", ""),
        ("half h = half(x[i]) * 2.0h; bfloat16_t b = bfloat16_t(x[i]); y[i] = float(h) + float(b);", ""),
        ("y[i] = cj_tab[i % 3u];", "constant constexpr float cj_tab[3] = {1.0f, 2.0f, 3.0f};"),
        ("cj_store(y + i, cj_square(x[i]));", "inline float cj_square(float a) { return a * a; }\n"
         "inline void cj_store(device float* p, float v) { *p = v; }"),
        ("cj_pair p; p.v = x[i]; y[i] = p.v;", "struct cj_pair { float v; };"),
        ("const device float4* p = (const device float4*)x; y[i] = p[i].x;", "#include <metal_simdgroup_matrix>\n"),
        ("threadgroup float s[4]; threadgroup float* p = s; p[i % 4u] = x[i]; y[i] = *p;", ""),
        ("#pragma clang loop unroll(full)\nfor (int j = 0; j < 4; ++j) { y[i] = x[i]; }", ""),
        ("// a lambda [&](double d) { std::erf(2.0); } in a comment\ny[i] = x[i];", ""),
        ("float t[4] = {0.0f, 0.0f, 0.0f, 0.0f}; int k[2] = {1, 2}; y[i] = t[k[k[0]]];", ""),
        ("int2 a = int2(1, 2) & int2(3); y[i] = float(a.x * a.y);", ""),
        ("y[i] = float(cj_half(i));", "struct cj_n { static constant constexpr int n = 2; };\n"
         "static inline uint cj_half(uint a) { return a / 2u; }"),
        ("y[i] = cj_sum(float4(x[i]));", "inline float cj_sum(float2 v) { return v.x + v.y; }\n"
         "inline float cj_sum(float4 v) { return cj_sum(v.xy) + cj_sum(v.zw); }"),
        ("threadgroup float s[cj_n[0]]; const constant int* p = cj_n; y[i] = s[p[0]];",
         "constant constexpr int cj_n[2] = {1, 2};"),
        ("const device packed_float3* p = (const device packed_float3*)x; y[i] = p[i].x;", "#define CJ_N 3\n"),
    ],
)  # fmt: skip
def test_valid_text_passes(body: str, before: str) -> None:
    assert lint(kernel(body, before)) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("double d = x[i]; y[i] = float(d);", "no double"),
        ("y[i] = x[i] * 2.0;", "`2.0` is a double"),
        ("y[i] = x[i] * 1e-5;", "`1e-5` is a double"),
        ("y[i] = std::max(x[i], 0.0f);", "no std::"),
        ("y[i] = metal::erf(x[i]);", "`erf`: not in Metal's library"),
        ("static float g = 0.0f; y[i] = g;", "`static`"),
        ("thread float* p = new float[2]; y[i] = p[0];", "`new`"),
        ("goto e; e: return;", "`goto`"),
        ("auto v = x[i]; y[i] = v;", "write the type"),
        ("bfloat b = bfloat(x[i]); y[i] = float(b);", "write bfloat16_t"),
        ("y[i] = x[i]; // caf\u00e9", "not ASCII"),
        ("float a[2]; float* p = a; y[i] = p[0];", "`float*` without an address space"),
        ("float a = x[i]; float& b = a; y[i] = b;", "`float&` without an address space"),
        ("float f = [](float a) { return a; }(x[i]); y[i] = f;", "a lambda"),
        ("if (i > 2u) { threadgroup float s[4]; s[0] = 1.0f; } y[i] = 1.0f;", "outermost block"),
        ("#pragma clang loop unroll(full)\nint j = 0; y[i] = float(j);", "directly before its loop"),
        ("int vertex = 1; y[i] = float(vertex);", "`vertex` is a reserved word"),
        ("float4 uint = float4(x[i]); y[i] = uint.x;", "`uint` is a reserved word"),
        ("static const float g = 1.0f; y[i] = g;", "`static`"),
        ("constant constexpr int n[1] = {1}; y[i] = float(n[0]);", "a `constant` variable inside of a function"),
        ("threadgroup float a[4], b[4]; a[0] = b[0];", "one each"),
        ("threadgroup_barrier(mem_flags::mem_none);", "orders no memory"),
        ("y[i] = ((const device float3*)x)[i].x;", "the room of four"),
        ("vec<float, 2> v = float2(x[i]); y[i] = v.x;", "write its short name"),
        ("y[i] = log1p(x[i]);", "`log1p`: not in Metal's library"),
    ],
)
def test_body(body: str, message: str) -> None:
    first, *_ = lint(kernel(body))
    assert message in str(first)
    assert str(first).startswith("kernel.metal:7:")


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("float cj_g = 1.0f;", "a variable outside of functions is `constant`"),
        ("constant constexpr float table[1] = {1.0f};", "`table` should begin with cj_"),
        ("inline float square(float a) { return a * a; }", "`square` should begin with cj_"),
        ("template <typename T> inline T cj_one() { return T(1); }", "no templates"),
        ("inline float cj_f(int n) { return n > 0 ? cj_f(n - 1) : 0.0f; }", "`cj_f` calls itself"),
        ("inline float cj_get(const float* p) { return *p; }", "`float*` without an address space"),
        ("inline float cj_h(uint i) { threadgroup float s[4]; return s[i]; }", "outermost block"),
        (
            "float cj_b(int n); float cj_a(int n) { return cj_b(n); } float cj_b(int n) { return cj_a(n); }",
            "`cj_a` calls itself",
        ),
        ("constant float cj_t[1] = {1.0f};", "write `constant constexpr`"),
        ("#define WIDTH 4", "the macro `WIDTH` should begin with CJ_"),
    ],
)
def test_program_scope(before: str, message: str) -> None:
    findings = lint(kernel("y[i] = x[i];", before))
    assert any(message in str(f) and f.line == 1 for f in findings), findings


def test_signature() -> None:
    (nothing_used,) = lint(kernel("y[i] = x[i];", arguments=""))
    assert "no thread attribute" in str(nothing_used)
    (accident,) = lint(kernel("y[i] = x[i];", arguments=f",\n  const constant int* x_shape [[buffer(2)]]{ATTRIBUTE}"))
    assert "`x_shape` became an argument" in str(accident)
    asked_for = f",\n  const constant int* input_shape [[buffer(2)]]{ATTRIBUTE}"
    assert lint(kernel("y[i] = x[i];", arguments=asked_for)) == []
    buffers = "".join(f",\n  device float* y{i} [[buffer({i})]]" for i in range(2, 32))
    (too_many,) = lint(kernel("y[i] = x[i];", arguments=buffers + ATTRIBUTE))
    assert "32 buffers" in str(too_many)


def test_rules_of_the_house_are_told_apart() -> None:
    body = "auto v = x[i] * 2.0; y[i] = v;"
    assert [f.house for f in lint(kernel(body, "template <class T> T twice(T v) { return v + v; }"))] == [True] * 5
    assert [f.house for f in lint(kernel("y[i] = std::exp(x[i]);"))] == [False]
