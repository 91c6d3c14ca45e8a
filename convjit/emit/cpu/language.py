"""C with vector extensions: the ops of an epilogue, one vector of lanes at a time.

Values of the types "f16" and "bf16" are held as floats that were rounded to them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable

from convjit.emit.cpu.simplify import SIGMOID
from convjit.emit.epilogue import Language

_UNORDERED = "(({0} != {0}) | ({1} != {1}))"
_ORDERED = "(({0} == {0}) & ({1} == {1}))"
_COMPARISONS = {
    "oeq": "({0} == {1})",
    "ogt": "({0} > {1})",
    "oge": "({0} >= {1})",
    "olt": "({0} < {1})",
    "ole": "({0} <= {1})",
    "one": "(({0} < {1}) | ({0} > {1}))",
    "ord": _ORDERED,
    "ueq": "~(({0} < {1}) | ({0} > {1}))",
    "ugt": "~({0} <= {1})",
    "uge": "~({0} < {1})",
    "ult": "~({0} >= {1})",
    "ule": "~({0} > {1})",
    "une": "({0} != {1})",
    "uno": _UNORDERED,
}

_FUNCTIONS = (
    *("ceil", "floor", "roundeven", "sqrt"),
    *("exp", "expm1", "log", "log1p", "log2", "log10"),
    *("sin", "cos", "tan", "tanh", "erf"),
)

_NEEDS = {
    "exp": {"scale"},
    "expm1": {"exp"},
    "sigmoid": {"exp", "quotient"},
    "tanh": {"quotient"},
    "erf": {"quotient"},
    "log": {"fraction"},
    "log1p": {"log"},
    "log2": {"log"},
    "log10": {"log"},
    "sin": {"quadrant"},
    "cos": {"quadrant"},
    "tan": {"quadrant"},
    "quadrant": {"doubles"},
    "pow": {"doubles", "fraction", "scale"},
}
"""Functions of templates/cpu/math.h.jinja -> those that they call or are written with."""


def _constant(value: float | bool, type_: str) -> str:
    if type_ == "i1":
        return f"splat_mask({-1 if value else 0})"
    return f"splat({float_literal(float(value))})"


def float_literal(value: float) -> str:
    """`value`, rounded to single precision, as a C literal."""
    if math.isnan(value):
        return '__builtin_nanf("")'
    try:
        single = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if math.isinf(single):
        return "-__builtin_inff()" if single < 0 else "__builtin_inff()"
    text = f"{single:.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


C = Language(
    types={"f32": "const vec", "f16": "const vec", "bf16": "const vec", "i1": "const mask"},
    ops={
        "arith.addf": "{0} + {1}",
        "arith.subf": "{0} - {1}",
        "arith.mulf": "{0} * {1}",
        "arith.divf": "{0} / {1}",
        "arith.negf": "-{0}",
        "arith.select": "select({0}, {1}, {2})",
        "arith.andi": "{0} & {1}",
        "arith.ori": "{0} | {1}",
        "arith.xori": "{0} ^ {1}",
        "arith.uitofp": "select({0}, splat(1.0f), splat(0.0f))",
        "arith.extf.f16": "{0}",
        "arith.extf.bf16": "{0}",
        "arith.truncf.f16": "round_f16({0})",
        "arith.truncf.bf16": "round_bf16({0})",
        **{f"arith.cmpf.{predicate}": text for predicate, text in _COMPARISONS.items()},
        **{f"math.{name}": f"vec_{name}({{0}})" for name in _FUNCTIONS},
        "math.absf": "vec_abs({0})",
        "math.rsqrt": "1.0f / vec_sqrt({0})",
        "math.powf": "vec_pow({0}, {1})",
        SIGMOID: "vec_sigmoid({0})",
    },
    constant=_constant,
)


def functions_used(lines: Iterable[str]) -> set[str]:
    """The functions of templates/cpu/math.h.jinja that statements call, and those which these call in turn."""
    used: set[str] = set()
    new = {name for line in lines for name in re.findall(r"\bvec_(\w+)\(", line)}
    while new:
        used |= new
        new = set[str]().union(*(_NEEDS.get(name, set()) for name in new)) - used
    return used
