"""Fast algorithms for short convolutions, F(m, r): m outputs of r taps by m + r - 1 multiplications instead of m r.

An algorithm is three matrices: outputs = A^T [(G taps) * (B^T inputs)], with * element by element. They are made by
Cook and Toom's method: two polynomials are evaluated at m + r - 2 points and at infinity, the values are multiplied,
and the product is interpolated; transposed, that is a convolution (Lavin & Gray, Fast Algorithms for Convolutional
Neural Networks, 2015). All arithmetic here is exact. In two dimensions, an algorithm is applied along one axis, then
along the other.

The points decide how rounding errors grow: they should be small, symmetric, and of small numerator and denominator
(Barabasz, Anderson, Soodhalter & Gregg, Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
Neural Networks, 2020). Points of a power of two as denominator make A and B exact in binary; only G, which is applied
once to the weights, has to be rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import prod

Matrix = tuple[tuple[Fraction, ...], ...]

TAPS = 3
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}
"""Where F(m, 3) evaluates, by m; infinity comes on top. Those of F(4, 3) err a quarter of the usual 0, 1, -1, 2, -2."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The matrices of F(m, r), with n = m + r - 1.

    Attributes:
        outputs: A^T, m x n.
        weights: G, n x r.
        inputs: B^T, n x n.
    """

    outputs: Matrix
    weights: Matrix
    inputs: Matrix

    @property
    def tile(self) -> int:
        """m: outputs of one application."""
        return len(self.outputs)

    @property
    def taps(self) -> int:
        """r: elements of the kernel."""
        return len(self.weights[0])

    @property
    def positions(self) -> int:
        """n: multiplications, and inputs read."""
        return len(self.inputs)


@cache
def algorithm(tile: int) -> Algorithm:
    """F(tile, 3) with the points above; for tile 1, the multiplication by a single tap."""
    if tile == 1:
        one = ((Fraction(1),),)
        return Algorithm(one, one, one)
    return cook_toom(tile, TAPS, POINTS[tile])


def cook_toom(tile: int, taps: int, points: Sequence[Fraction]) -> Algorithm:
    """F(tile, taps) from tile + taps - 2 points, all different, and infinity."""
    n = tile + taps - 1
    assert len(set(points)) == len(points) == n - 1
    others = [[q for q in points if q != p] for p in points]
    scales = [prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    outputs = [[p**i for p in points] + [Fraction(i == tile - 1)] for i in range(tile)]
    weights = [[p**i / scale for i in range(taps)] for p, scale in zip(points, scales, strict=True)]
    weights.append([Fraction(i == taps - 1) for i in range(taps)])
    inputs = [[*_with_roots(rest), Fraction(0)] for rest in others]
    inputs.append(_with_roots(points))
    return Algorithm(_matrix(outputs), _matrix(weights), _matrix(inputs))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the product of (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _matrix(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
