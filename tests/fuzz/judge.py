"""Which results are wrong."""

from __future__ import annotations

import numpy as np
from definition import Noise
from random_programs import EPSILONS, Program
from reference import Array


def complaints(program: Program) -> list[str]:
    """What is wrong with the results of a program, one sentence an array; nothing if all is right.

    A right answer may be off by what a few right kernels would be, whose errors the definition is computed with, and by
    the rounding of what is elementwise. Where MLX's own ops round as well, in its reductions and after each step in
    half precision, plain MLX may excuse an error: one that is no more than twice as large as its own, or four times in
    half precision, where sums that cancel leave nothing but rounding.
    """
    expected = program.exact()
    tolerances = _tolerances(program, expected)
    plain: list[Array] | None = None
    found: list[str] = []
    actual = program.run()
    assert len(actual) == len(expected)
    for number, (y, wanted, tolerance) in enumerate(zip(actual, expected, tolerances, strict=True)):
        if y.shape != wanted.shape:
            found.append(f"result {number} has shape {y.shape}, not {wanted.shape}")
            continue
        wrong = ~_right(y, wanted, tolerance)
        if wrong.any() and (program.dtype != "f32" or program.has_reductions or program.has_gradients):
            plain = plain or program.run(plain=True)
            wrong &= ~_excused(y, wanted, tolerance, plain[number], program.dtype)
        if wrong.any():
            at = tuple(int(n) for n in np.argwhere(wrong)[0])
            found.append(
                f"result {number}: {wrong.sum()} of {y.size} are wrong; at {at} {y[at]}, "
                f"not {wanted[at]} +- {tolerance[at]}"
            )
    return found


def _right(y: Array, wanted: Array, tolerance: Array) -> Array:
    with np.errstate(invalid="ignore"):
        close = (y == wanted) | (np.isnan(y) & np.isnan(wanted)) | (np.abs(y - wanted) <= tolerance)
    return close | np.isinf(tolerance)


def _excused(y: Array, wanted: Array, tolerance: Array, plain: Array, dtype: str) -> Array:
    if plain.shape != wanted.shape:
        return np.zeros(wanted.shape, np.bool_)
    if dtype != "f32" and not np.isfinite(plain).all():  # an overflow, which spreads in its own way
        return np.ones(wanted.shape, np.bool_)
    finite = np.isfinite(wanted) & np.isfinite(plain)
    with np.errstate(invalid="ignore"):
        error = np.max(np.abs(plain - wanted), where=finite, initial=0.0)
    largest = np.max(np.abs(wanted), where=finite, initial=0.0)
    allowance = 2 * min(error, 1e-3 * (1 + largest)) if dtype == "f32" else 4 * error
    return _right(y, wanted, tolerance + allowance)


def _tolerances(program: Program, expected: list[Array]) -> list[Array]:
    eps = EPSILONS[program.dtype]
    neighbours = [program.exact(Noise(eps, sign, seed)) for sign, seed in ((1, 1), (-1, 1), (1, 2))]
    return [_tolerance(value, others, eps) for value, *others in zip(expected, *neighbours, strict=True)]


def _tolerance(value: Array, neighbours: list[Array], eps: float) -> Array:
    with np.errstate(all="ignore"):
        spread = np.max([np.abs(n - value) for n in neighbours], axis=0)
    finite = np.isfinite(value)
    # one output that is not finite spreads to its neighbours behind a mean, and need not be the same NaN or infinity
    if eps > EPSILONS["f32"] and not finite.all():
        return np.where(finite, spread * 4 + 0.1 * (1 + np.abs(value)), np.inf)
    largest = float(np.abs(value[finite]).max(initial=0.0))
    return np.where(finite, 4 * spread + (8 * eps + 1e-6) * (np.abs(value) + largest) + 8 * eps, 0.0)
