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
