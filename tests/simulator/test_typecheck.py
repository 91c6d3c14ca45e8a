"""The type check: what it takes, construct by construct, and what it says where it does not."""

from __future__ import annotations

import sys

import pytest

from convjit import simulator

SIGNATURE = """\
[[kernel]] void custom_kernel_k(
  const device float* x [[buffer(0)]],
  const device bfloat16_t* xb [[buffer(1)]],
  const device half* xh [[buffer(2)]],
  const constant float& s [[buffer(3)]],
  const constant int* x_shape [[buffer(4)]],
  const constant int64_t* x_strides [[buffer(5)]],
  const constant int& x_ndim [[buffer(6)]],
  device float* y [[buffer(7)]],
  device bfloat16_t* yb [[buffer(8)]],
  device atomic<float>* ya [[buffer(9)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
  uint i = thread_position_in_grid.x;
"""
BODY_LINE = SIGNATURE.count("\n") + 1


def kernel(body: str, before: str = "") -> str:
    return f"{before}{SIGNATURE}{body}\n}}\n"


RIGHT = {
    "matrices": """
simdgroup_matrix<bfloat16_t, 8, 8> a, b;
simdgroup_float8x8 c = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
simdgroup_matrix<float, 8, 8> tiles[2][3];
tiles[1][2] = simdgroup_matrix<float, 8, 8>(0.0f);
simdgroup_load(a, xb, 8u);
simdgroup_load(b, xb + 8, 16, ulong2(0, 0), true);
simdgroup_multiply_accumulate(c, a, b, c);
c.thread_elements()[0] += 1.0f;
thread auto& e = c.thread_elements();
float2 pair = c.thread_elements();
y[i] = e[1] + pair.x;
simdgroup_store(c, y + i, 8ul, ulong2(1ul, 2ul));
threadgroup half sh[64];
simdgroup_half8x8 h = make_filled_simdgroup_matrix<half, 8>(half(0));
simdgroup_load(h, sh, 8, 0, false);
simdgroup_store(h, sh + 1);""",
    "vectors": """
float4 f = float4(x[i], 2.0f, f.xy);
f.xy = f.zw;
f.x += 1.0f;
f = -f * 2.0f + float4(1.0f);
f *= s;
f = fma(f, float4(2.0f), f);
f = clamp(max(f, 0.0f), 0.0f, 6.0f);
f = mix(f, f, 0.5f) + float4(int4(1, 2, 3, 4));
int3 c = int3(thread_position_in_grid) / 2 + int3(1, 2, 3);
uint3 z = uint3(thread_position_in_grid.xy, 1u);
half3 h = half3(float3(c));
y[z.x] = f[c.x] + dot(f, f) + float(h.y);
vec<float, 2> v = vec<float, 2>(1.0f, 2.0f);
bool4 m = f < float4(1.0f);
y[0] = all(m) && any(!m) ? v.y : select(f, float4(0.0f), f < f).x;""",
    "memory": """
const device packed_float4* p = (const device packed_float4*)x;
float4 v = p[i];
*(device packed_float3*)y = v.xyz;
half4 h = half4(*(const device half4*)(xh + 4 * i));
const device float4* q = reinterpret_cast<const device float4*>(x);
threadgroup float tile[2][32][4 + 1];
threadgroup float4 rows[32];
threadgroup float (&half_tile)[32][5] = tile[i & 1];
half_tile[0][0] = float(h.x) + q[0].y;
threadgroup float4* r = (threadgroup float4*)&tile[0][0][0];
r[0] = rows[1];
threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
simdgroup_barrier(mem_flags::mem_none);
float own[2][3] = {{0.0f}};
thread float* t = &own[0][0];
thread float (&row)[3] = own[1];
y[ulong(i) * 4ul + size_t(x_shape[0])] = t[1] + row[2];
y[elem_to_loc(i, x_shape, x_strides, x_ndim)] = 0.0f;""",
    "bfloat": """
vec<bfloat16_t, 4> b = *(const device vec<bfloat16_t, 4>*)xb;
float4 f = float4(b);
b = vec<bfloat16_t, 4>(f);
bfloat16_t q = xb[0] + xb[1];
q = bfloat16_t(float(q) * 2.0f);
q = static_cast<bfloat16_t>(f.x);
q = (bfloat16_t)f.x;
q = q < xb[0] ? q : -b.y;
q += xb[2];
float wide = xb[i];
wide += xb[i] + exp(float(q)) + 2.0bf;
yb[i] = as_type<bfloat16_t>(simd_shuffle(as_type<ushort>(q), ushort(1)));""",
    "functions": """
float a = precise::exp(x[i]) + fast::log(x[i]) + metal::precise::tanh(x[i]) + metal::rsqrt(x[i]);
a = as_type<float>(as_type<uint>(a) + 1u);
y[i] = metal::isnan(a) ? NAN : (isinf(a) ? -INFINITY : metal::fma(a, 2.0f, 1.0f));
float v = simd_sum(x[i]) + simd_shuffle_down(a, 16) + simd_shuffle_xor(a, ushort(1)) + simd_broadcast(a, 0u);
v += simd_shuffle_and_fill_up(v, 0.0f, 1) + float(simd_prefix_exclusive_sum(i)) + (simd_all(v > 0.0f) ? 1.0f : 0.0f);
atomic_fetch_add_explicit(ya + i, v, memory_order_relaxed);
threadgroup atomic_uint counts[2];
atomic_store_explicit(&counts[0], 0, memory_order_relaxed);
int n = clamp(min(int(i), 3), 0, 7) + abs(-3) + popcount(i);
y[n] = metal::select(a, v, n > 2);""",
    "language": """
#pragma clang loop unroll(full)
for (int j = 0; j < 4; ++j) { y[j] = x[j]; }
short k = short(i); ushort u = ushort(k); uchar c = 3; long l = long(i); ulong m = (ulong)l;
int local = 1, global = 2;
y[local] = y[global] + float(k + u + c) + float(m);
struct P { int a; float b; };
P p = {1, 2.0f};
switch (p.a) { case 1: y[1] = p.b; break; default: break; }
do { p.a += 1; } while (p.a < 3);""",
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_bodies(name: str) -> None:
    assert simulator.type_check(kernel(RIGHT[name])) == []


def test_right_program_scope() -> None:
    before = """\
#include <metal_simdgroup_matrix>
constant constexpr int cj_table[4] = {1, 2, 3, 4};
constant float cj_plain[2] = {1.0f, 2.0f};
inline float cj_load(const device float* p, uint i) { return p[i]; }
inline void cj_add(thread float& a, float b) { a += b; }
inline void cj_fill(threadgroup float* p, uint i) { p[i] = 0.0f; }
METAL_FUNC float cj_first(const constant float* p) { return p[0]; }
template <typename T, int N> inline T cj_sum(const thread T (&v)[N]) { return v[0] + v[N - 1]; }
template <typename T> inline T cj_get(const device T* p, int i) { return p[i]; }
struct cj_box {
  float v[4];
  float get(int i) const { return v[i]; }
  void set(int i, float x) thread { v[i] = x; }
};
template <int M, int N> struct cj_tile {
  static constant constexpr int size = M * N;
  const device float* from;
  threadgroup float* to;
  cj_tile(const device float* f, threadgroup float* t) : from(f), to(t) {}
  void load() const { for (short i = 0; i < size; i++) to[i] = from[i]; }
};
struct cj_plus { template <typename T> T operator()(T a, T b) const { return a + b; } };
"""
    body = """
threadgroup float t[64];
cj_fill(t, i);
float a = cj_load(x, i);
cj_add(a, cj_plain[0] + float(cj_table[i & 3]) + cj_first(&s) + cj_first(cj_plain));
float v[3] = {1.0f, 2.0f, 3.0f};
cj_box b;
b.set(0, cj_sum(v) + cj_get(x, 1));
cj_tile<4, 4> tile(x, t);
tile.load();
y[i] = cj_plus()(a, b.get(0));"""
    assert simulator.type_check(kernel(body, before)) == []


def test_a_template_that_mlx_instantiates() -> None:
    text = """\
template <typename T, int N, bool B>
[[kernel]] void custom_kernel_k__float__3_1(
  const device float* x [[buffer(0)]],
  device T* y [[buffer(1)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {
T v[4] = {T(N)}; y[0] = B ? v[0] : T(x[0]);
%s
}

template [[host_name("custom_kernel_k__float__3_1")]] [[kernel]] decltype(custom_kernel_k__float__3_1<float, -3, 1>) \
custom_kernel_k__float__3_1<float, -3, 1>;
"""
    assert simulator.type_check(text % "") == []
    (finding,) = simulator.type_check(text % "half4 h = y[0] + nothing;")
    assert (finding.line, finding.message) == (7, "use of undeclared identifier 'nothing'")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("float a[2]; float* p = a; y[i] = p[0];", "`p` is a pointer or reference without an address space"),
        ("float a = 1.0f; float& r = a;", "`r` is a pointer or reference without an address space"),
        ("y[i] = *(float*)(y + i);", "a cast to a pointer or reference without an address space"),
        ("threadgroup float* q = (threadgroup float*)x;", "mismatching address spaces"),
        ("thread float* q = x;", "cannot initialize a variable of type 'thread float *thread'"),
        ("x[i] = 1.0f;", "read-only variable is not assignable"),
        ("bfloat16_t b = x[i];", "becomes bfloat only explicitly"),
        ("yb[i] = yb[i] + 1.0f;", "becomes bfloat only explicitly"),
        ("yb[i] += 1.0f;", "becomes bfloat only explicitly"),
        ("half h = xb[i];", "cannot initialize a variable of type 'thread half'"),
        ("y[i] = float(min(i, 3));", "call to 'min' is ambiguous"),
        ("y[i] = exp(1);", "call to 'exp' is ambiguous"),
        ("float4 f = float4(1.0f, 2.0f);", "wrong number of components"),
        ("float4 f = half4(1.0h);", "cannot initialize"),
        ("threadgroup_barrier();", "requires 1 argument, but 0 were provided"),
        ("threadgroup_barrier(2);", "no known conversion from 'int' to 'thread mem_flags'"),
        ("threadgroup float t[4] = {0.0f};", "'threadgroup' variable cannot have an initializer"),
        ("double d = 1.0f;", "'double' is not in Metal"),
        ("y[i] = metal::erf(x[i]);", "no member named 'erf'"),
        ("simdgroup_matrix<float, 4, 4> m;", "a simdgroup_matrix is 8 x 8"),
        ("simdgroup_matrix<half, 8, 8> m; simdgroup_load(m, x, 8);", "no matching function for call"),
        ("y[i] = thread_position_in_threadgrp.x;", "undeclared identifier 'thread_position_in_threadgrp'"),
    ],
)  # fmt: skip
def test_wrong_bodies(body: str, message: str) -> None:
    findings = simulator.type_check(kernel(body))
    assert any(message in f.message and f.line == BODY_LINE for f in findings), findings


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("inline float cj_get(const float* p) { return *p; }", "`p` is a pointer"),
        ("template <typename T> inline T cj_get(const T& v) { return v; }", "`v` is a pointer"),
        ("struct cj_p { float* p; };", "`p` is a pointer"),
        ("inline const float* cj_id(const device float* p);", "`cj_id` returns"),
        ("float cj_g = 1.0f;", "program scope variable must reside in constant address space"),
        ("inline float cj_f(uint i) { threadgroup float s[4]; return s[i]; }", "threadgroup address space"),
        ("struct cj_a { float v[4]; thread float& at(int k) { return v[k]; } };", "changes address space"),
        ('#include "mlx/steel.h"', "file not found"),
    ],
)
def test_wrong_program_scope(before: str, message: str) -> None:
    findings = simulator.type_check(kernel("y[i] = x[i];", before + "\n"))
    assert any(message in f.message and f.line == 1 for f in findings), findings


def test_long_expressions_do_not_exhaust_the_stack() -> None:
    assert simulator.type_check(kernel("y[i] = " + " + ".join(["x[i]"] * 1500) + ";")) == []


def test_without_libclang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clang", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install convjit\[simulator\]"):
        simulator.type_check(kernel(""))
