"""Winograd's algorithms: exactly the convolutions that they stand for."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
import pytest

from convjit.bilinear import POINTS, Algorithm, Matrix, Tap, algorithm, composed, left_inverse


@pytest.mark.parametrize("tile", [1, *POINTS])
def test_algorithms_of_three_taps_are_convolutions(tile: int):
    a = algorithm(tile)
    for i in range(a.tile):
        for tap in range(a.taps):
            for j in range(a.positions):
                terms = zip(a.outputs[i], (row[tap] for row in a.weights), (row[j] for row in a.inputs), strict=True)
                assert sum(prod(t) for t in terms) == (j == i + tap)


@pytest.mark.parametrize("tile", POINTS)
def test_transforms_of_inputs_and_outputs_are_exact_in_float32(tile: int):
    a = algorithm(tile)
    for row in (*a.inputs, *a.outputs):
        assert all(Fraction(float(np.float32(float(f)))) == f for f in row)


PLAIN = {taps: (tuple((t, t) for t in range(taps)),) for taps in (1, 2, 3, 5, 7, 11)}
TRANSPOSED = {4: (((3, 0), (1, 1)), ((2, 1), (0, 2))), 3: (((1, 0),), ((2, 0), (0, 1)))}
COMPOSED = [
    *((tile, phases, 1) for phases in PLAIN.values() for tile in (1, 2, 3, 4, 6)),
    *((tile, PLAIN[taps], stride) for tile in (2, 4) for taps in (3, 5) for stride in (2, 3)),
    *((tile, phases, 1) for phases in TRANSPOSED.values() for tile in (2, 4)),
]


@pytest.mark.parametrize(("tile", "phases", "stride"), COMPOSED)
def test_composed_algorithms_are_convolutions(tile: int, phases: tuple[tuple[Tap, ...], ...], stride: int):
    a = composed(tile, phases, stride)
    for number, row in enumerate(a.outputs):
        q, phase = divmod(number, len(phases))
        met = {(element, offset + q * stride) for element, offset in phases[phase]}
        assert {pair for pair, factor in _factors(a, row).items() if factor} == met
        assert set(_factors(a, row).values()) <= {Fraction(0), Fraction(1)}


def _factors(a: Algorithm, row: tuple[Fraction, ...]) -> dict[tuple[int, int], Fraction]:
    """(kernel element, input) -> what their product is multiplied by in an output."""
    return {
        (element, read): sum(
            (p * g[element] * b[read] for p, g, b in zip(row, a.weights, a.inputs, strict=True)), Fraction(0)
        )
        for element in range(a.taps)
        for read in range(a.reads)
    }


@pytest.mark.parametrize(("tile", "phases", "stride"), COMPOSED)
def test_kernels_are_found_from_their_transforms(tile: int, phases: tuple[tuple[Tap, ...], ...], stride: int):
    weights = composed(tile, phases, stride).weights
    assert _product(left_inverse(weights), weights) == [
        [Fraction(i == k) for k in range(len(weights[0]))] for i in range(len(weights[0]))
    ]


def _product(a: Matrix, b: Matrix) -> list[list[Fraction]]:
    return [
        [sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0)) for column in zip(*b, strict=True)]
        for row in a
    ]
