"""Metal as a language of epilogues."""

from __future__ import annotations

import math

import numpy as np

from convjit.emit.epilogue import Language

TYPES = {"f32": "float", "f16": "half", "bf16": "bfloat16_t"}


def _constant(value: float | bool, type_: str) -> str:
    if type_ == "i1":
        return "true" if value else "false"
    if math.isnan(value):
        return "NAN"
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if np.isinf(rounded):
        return "INFINITY" if rounded > 0 else "-INFINITY"
    return f"{rounded}f"


_COMPARISONS = {
    "false": "false",
    "oeq": "{0} == {1}",
    "ogt": "{0} > {1}",
    "oge": "{0} >= {1}",
    "olt": "{0} < {1}",
    "ole": "{0} <= {1}",
    "one": "{0} < {1} || {0} > {1}",
    "ord": "!(metal::isnan({0}) || metal::isnan({1}))",
    "ueq": "!({0} < {1} || {0} > {1})",
    "ugt": "!({0} <= {1})",
    "uge": "!({0} < {1})",
    "ult": "!({0} >= {1})",
    "ule": "!({0} > {1})",
    "une": "{0} != {1}",
    "uno": "metal::isnan({0}) || metal::isnan({1})",
    "true": "true",
}
_PRECISE = ("exp", "log", "log2", "log10", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh")
OWN_FUNCTIONS = ("erf", "expm1", "log1p")
"""Functions that Metal does not have: `functions.metal` defines them as cj_erf, ..."""

METAL = Language(
    types={**TYPES, "i1": "bool"},
    ops={
        "arith.addf": "{0} + {1}",
        "arith.subf": "{0} - {1}",
        "arith.mulf": "{0} * {1}",
        "arith.divf": "{0} / {1}",
        "arith.negf": "-{0}",
        # As MLX's Maximum and Minimum: a NaN of either side wins, of equals the second does.
        "arith.select": "{0} ? {1} : {2}",
        "arith.andi": "{0} && {1}",
        "arith.ori": "{0} || {1}",
        "arith.xori": "{0} != {1}",
        "arith.uitofp": "{0} ? 1.0f : 0.0f",
        "arith.extf.f16": "float({0})",
        "arith.extf.bf16": "float({0})",
        "arith.truncf.f16": "half({0})",
        "arith.truncf.bf16": "bfloat16_t({0})",
        "math.absf": "metal::fabs({0})",
        "math.ceil": "metal::ceil({0})",
        "math.floor": "metal::floor({0})",
        "math.roundeven": "metal::rint({0})",
        "math.powf": "metal::precise::pow({0}, {1})",
        **{f"arith.cmpf.{predicate}": text for predicate, text in _COMPARISONS.items()},
        **{f"math.{name}": f"metal::precise::{name}({{0}})" for name in _PRECISE},
        **{f"math.{name}": f"cj_{name}({{0}})" for name in OWN_FUNCTIONS},
    },
    constant=_constant,
)
