"""Which results are wrong."""

from __future__ import annotations

import numpy as np
from definition import Noise
from random_programs import EPSILONS, Program
from reference import Array

LARGEST = {"f32": 3.4028234e38, "f16": 65504.0, "bf16": 3.3895314e38}
"""The largest numbers; what is larger is stored as an infinity."""

FEW, MANY = 2, 12
"""Right kernels, each with its errors and with their negatives."""

CANCELLED = 2.0**-22
"""What numbers of order 1 leave when they cancel in float32."""


def complaints(program: Program) -> list[str]:
    """What is wrong with the results of a program, one sentence an array; nothing if all is right.

    A right answer may be off by what a few right kernels would be, whose errors the definition is computed with, and by
    the rounding of what is elementwise; where a few find an answer wrong, many are asked: what rounding moves across a
    comparison is not moved by each. Where ops of MLX's round as well, plain MLX may excuse an error: one that is
    no more than twice as large as its largest one, or 1.5 times in half precision, or the same number. What a single
    kernel computes in half precision has only the last excuse, as where a comparison sees what it rounded. If plain MLX
    overflows in half precision, NaN may spread in its own way: products with zeros that nobody needs are NaN, too.
    """
    expected, actual = program.exact(), program.run()
    assert len(actual) == len(expected)
    return _complaints(program, expected, actual, FEW) and _complaints(program, expected, actual, MANY)


def _complaints(program: Program, expected: list[Array], actual: list[Array], kernels: int) -> list[str]:
    tolerances = _tolerances(program, expected, kernels)
    plain: list[Array] | None = None
    found: list[str] = []
    for number, (y, wanted, tolerance) in enumerate(zip(actual, expected, tolerances, strict=True)):
        if y.shape != wanted.shape:
            found.append(f"result {number} has shape {y.shape}, not {wanted.shape}")
            continue
        wrong = ~_right(y, wanted, tolerance, program.dtype)
        if wrong.any():
            plain = plain or program.run(plain=True)
            wrong &= ~_excused(program, y, wanted, tolerance, plain[number])
            if program.dtype != "f32" and any(map(_overflows, plain, expected)):
                wrong &= np.isfinite(y)
        if wrong.any():
            at = tuple(int(n) for n in np.argwhere(wrong)[0])
            found.append(
                f"result {number}: {wrong.sum()} of {y.size} are wrong; at {at} {y[at]}, "
                f"not {wanted[at]} +- {tolerance[at]}"
            )
    return found


def _right(y: Array, wanted: Array, tolerance: Array, dtype: str) -> Array:
    with np.errstate(invalid="ignore"):
        close = (y == wanted) | (np.isnan(y) & np.isnan(wanted)) | (np.abs(y - wanted) <= tolerance)
        overflow = np.isinf(y) & (np.sign(y) == np.sign(wanted)) & (np.abs(wanted) + tolerance >= LARGEST[dtype])
    return close | overflow


def _overflows(plain: Array, wanted: Array) -> bool:
    return plain.shape == wanted.shape and bool((np.isfinite(wanted) & ~np.isfinite(plain)).any())


def _excused(program: Program, y: Array, wanted: Array, tolerance: Array, plain: Array) -> Array:
    dtype = program.dtype
    if plain.shape != wanted.shape:
        return np.zeros(wanted.shape, np.bool_)
    same = _right(y, plain, np.where(np.isfinite(plain), 2 * EPSILONS[dtype] * np.abs(plain), 0.0), dtype)
    if dtype != "f32" and program.is_one_kernel:
        return same
    finite = np.isfinite(wanted) & np.isfinite(plain)
    with np.errstate(invalid="ignore"):
        error = np.max(np.abs(plain - wanted), where=finite, initial=0.0)
    largest = np.max(np.abs(wanted), where=finite, initial=0.0)
    if dtype == "f32":
        return same | _right(y, wanted, tolerance + 2 * min(error, 1e-3 * (1 + largest)), dtype)
    return same | _right(y, wanted, tolerance + 1.5 * error, dtype)


def _tolerances(program: Program, expected: list[Array], kernels: int) -> list[Array]:
    eps = EPSILONS[program.dtype]
    every_step = program.dtype == "f32" or not program.is_one_kernel
    errors = [Noise(eps, sign, seed, every_step) for seed in range(1, kernels + 1) for sign in (1, -1)]
    neighbours = map(program.exact, errors)
    return [_tolerance(program, value, others) for value, *others in zip(expected, *neighbours, strict=True)]


def _tolerance(program: Program, value: Array, neighbours: list[Array]) -> Array:
    with np.errstate(all="ignore"):
        spread = np.max([np.abs(n - value) for n in neighbours], axis=0)
    finite = np.isfinite(value)
    scale = np.abs(value) + float(np.abs(value[finite]).max(initial=0.0))
    rounding = 8 * EPSILONS["f32"] + 1e-6 if program.dtype == "f32" else 2 * EPSILONS[program.dtype]
    is_one_kernel = program.dtype != "f32" and program.is_one_kernel
    tolerance = (2 if is_one_kernel else 4) * spread + rounding * scale
    return np.where(finite, tolerance + CANCELLED, 0.0)
