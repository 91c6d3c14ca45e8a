"""The functions and conversions of templates/cpu, against double precision, on floats from all over their range."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import numpy.typing as npt
import pytest
import reference

from convjit.backends.cpu import toolchain
from convjit.emit.cpu.language import functions_used
from convjit.emit.render import TEMPLATES, render

STEP = 16381
"""Every so many of the 2^32 floats."""

STATED = re.search(r"/\* Elementary functions.*?\*/", (TEMPLATES / "cpu/math.h.jinja").read_text(), re.DOTALL)
assert STATED is not None
BOUNDS = {name: float(bound) for name, bound in re.findall(r"(\w+) (\d+\.\d)", STATED[0])}
"""Units in the last place, as the template states them."""

CHECK = """
#include <math.h>
#include <string.h>
{{vector}}
static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* The distance in units in the last place of a float; infinite where a NaN, an infinity or a sign is wrong. */
static double distance(float y, double exact)
{
    const float nearest = (float)exact;
    if (isnan(y) || isnan(exact))
        return isnan(y) && isnan(exact) ? 0 : INFINITY;
    if (signbit(y) != signbit(nearest) || isinf(y) != isinf(nearest))
        return fabs(exact) > 0x1.fffffdp127 && fabs(exact) < 0x1.000003p128 ? 1 : INFINITY;
    if (y == nearest)
        return 0;
    int exponent;
    frexp(nearest, &exponent);
    return fabs(y - exact) / ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

static float float_of(unsigned bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
{{checks}}
"""

UNARY = """
double check_{name}(unsigned long step, float *worst)
{{
    double largest = 0;
    for (unsigned long bits = 0; bits < 1ul << 32; bits += step * LANES) {{
        vec x = {{0}};
        for (int lane = 0; lane < LANES; lane++)
            x[lane] = float_of(bits + lane * step);
        const vec y = vec_{name}(x);
        for (int lane = 0; lane < LANES; lane++) {{
            const double found = distance(y[lane], {name}(x[lane]));
            if (found > largest)
                worst[0] = x[lane], worst[1] = y[lane], largest = found;
        }}
    }}
    return largest;
}}
"""

POWER = """
double check_pow(const float *a, const float *b, long count, float *worst)
{
    double largest = 0;
    for (long at = 0; at < count; at += LANES) {
        const vec x = load_f32(a + at, LANES), y = load_f32(b + at, LANES), z = vec_pow(x, y);
        for (int lane = 0; lane < LANES; lane++) {
            const double found = distance(z[lane], pow(x[lane], y[lane]));
            if (found > largest)
                worst[0] = x[lane], worst[1] = y[lane], largest = found;
        }
    }
    return largest;
}
"""

CONVERSIONS = """
#include <string.h>
{{vector}}
void store_all(const float *from, half *to, long count)
{
    for (long at = 0; at < count; at += LANES)
        store_DTYPE(to + at, load_f32(from + at, LANES), LANES);
}

void load_all(const half *from, float *to, long count)
{
    for (long at = 0; at < count; at += LANES)
        store_f32(to + at, load_DTYPE(from + at, LANES), LANES);
}
"""


def library(text: str, lanes: int, functions: set[str], dtypes: set[str]) -> ctypes.CDLL:
    vector = render("cpu/vector.h", lanes=lanes, functions=functions, dtypes=dtypes)
    return ctypes.CDLL(str(toolchain.find().build(text.replace("{{vector}}", vector))))


def address(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.fixture(scope="module", params=[16, 8, 4])
def functions(request: pytest.FixtureRequest) -> ctypes.CDLL:
    names = functions_used(f"vec_{name}(" for name in BOUNDS)
    checks = "".join(UNARY.format(name=name) for name in BOUNDS if name != "pow") + POWER
    return library(CHECK.replace("{{checks}}", checks), request.param, names, set())


@pytest.mark.parametrize("name", sorted({*BOUNDS} - {"pow"}))
def test_function(functions: ctypes.CDLL, name: str):
    check = functions[f"check_{name}"]
    check.restype = ctypes.c_double
    worst = np.zeros(2, np.float32)
    found = check(ctypes.c_ulong(STEP), address(worst))
    assert found <= BOUNDS[name], f"{name}({worst[0]!r}) = {worst[1]!r} is {found:.2f} units wrong"


def test_power(functions: ctypes.CDLL):
    rng = np.random.default_rng(0)
    special = [0, 1, 2, 0.5, 3, 1.5, 1 / 3, np.inf, 1e-40, 3e38, 1e9, 2**24 + 2, 1 + 2**-20, 1 - 2**-20, np.nan]
    special = [*special, *(-v for v in special)]
    magnitudes = np.exp(rng.uniform(-80, 80, 1 << 15))
    x = np.concatenate(
        [np.repeat(special, len(special)), magnitudes, -magnitudes, rng.uniform(0.9, 1.1, 1 << 15), magnitudes]
    )
    y = np.concatenate(
        [
            np.tile(special, len(special)),
            rng.uniform(-3, 3, 1 << 15),
            rng.integers(-20, 20, 1 << 15),
            rng.uniform(-1500, 1500, 1 << 15),
            rng.choice([2, 3, 0.5, -1, -2, 1 / 3, 0], 1 << 15),
        ]
    )
    x, y = (np.pad(v, (0, -len(v) % 16)).astype(np.float32) for v in (x, y))
    functions.check_pow.restype = ctypes.c_double
    worst = np.zeros(2, np.float32)
    found = functions.check_pow(address(x), address(y), ctypes.c_long(len(x)), address(worst))
    assert found <= BOUNDS["pow"], f"pow{tuple(worst)} is {found:.2f} units wrong"


def test_the_template_states_a_bound_for_every_function():
    assert len(BOUNDS) == 16


@pytest.mark.parametrize("lanes", [16, 8, 4])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_conversions_of_half_types(lanes: int, dtype: str):
    converter = library(CONVERSIONS.replace("DTYPE", dtype), lanes, set(), {dtype})
    halves = np.arange(1 << 16, dtype=np.uint16)
    numbers = halves.view(np.float16).astype(np.float32)
    if dtype == "bf16":
        numbers = (halves.astype(np.uint32) << 16).view(np.float32)
    got = np.empty(1 << 16, np.float32)
    converter.load_all(address(halves), address(got), ctypes.c_long(got.size))
    same_bits(got, numbers)

    neighbours = (numbers.view(np.uint32)[:, None] + np.arange(-3, 4).astype(np.uint32)).ravel()
    halfway = numbers.view(np.uint32) + (1 << 15 if dtype == "bf16" else 1 << 12)
    everywhere = np.arange(0, 1 << 32, STEP, dtype=np.uint32)
    bits = np.concatenate([neighbours, halfway, halfway - 1, halfway + 1, everywhere])
    singles = np.resize(bits, -(-bits.size // 16) * 16).view(np.float32)
    stored = np.empty(singles.size, np.uint16)
    converter.store_all(address(singles), address(stored), ctypes.c_long(singles.size))
    with np.errstate(invalid="ignore"):
        want = reference.round_to(singles.astype(np.float64), dtype).astype(np.float32)
    same_bits(numbers[stored], want)


def same_bits(got: npt.NDArray[np.float32], want: npt.NDArray[np.float32]) -> None:
    """The same numbers, signs of zeros included, and NaN where NaN is wanted."""
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), f"{got[~same][:8]} instead of {want[~same][:8]}"
