"""Fast algorithms for short convolutions, F(m, r): m outputs of r taps by m + r - 1 multiplications instead of m r.

An algorithm is three matrices: outputs = A^T [(G taps) * (B^T inputs)], with * element by element. They are made by
Cook and Toom's method: two polynomials are evaluated at m + r - 2 points and at infinity, the values are multiplied,
and the product is interpolated; transposed, that is a convolution (Lavin & Gray, Fast Algorithms for Convolutional
Neural Networks, 2015). All arithmetic here is exact. In two dimensions, an algorithm is applied along one axis, then
along the other.

Convolutions with a stride, and transposed ones, are sums of short ones of every so many inputs (`composed`).

The points decide how rounding errors grow: they should be small, symmetric, and of small numerator and denominator
(Barabasz, Anderson, Soodhalter & Gregg, Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
Neural Networks, 2020). Points of a power of two as denominator make A and B exact in binary; only G, which is applied
once to the weights, has to be rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import prod

Matrix = tuple[tuple[Fraction, ...], ...]

Tap = tuple[int, int]
"""An element of a kernel, and the input that it meets for the first output."""

TAPS = 3
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}
"""Where F(m, 3) evaluates, by m; infinity comes on top. Those of F(4, 3) err a quarter of the usual 0, 1, -1, 2, -2."""

_POINTS = {
    2: (Fraction(0),),
    3: (Fraction(1), Fraction(-1)),
    4: POINTS[2],
    5: (Fraction(1, 2), Fraction(-1, 2), Fraction(5, 4), Fraction(-5, 4)),
    6: POINTS[4],
    7: tuple(Fraction(sign * n, 8) for n in (2, 7, 15) for sign in (1, -1)),
    8: (Fraction(0), *(Fraction(sign * n, 2) for n in (1, 2, 4) for sign in (1, -1))),
}
"""Where F(m, r) evaluates, by m + r - 1: of all sets of multiples of 1/8 up to 2, those that erred least."""

MAX_POSITIONS = max(_POINTS)
"""More multiplications would err too much."""


@dataclass(frozen=True)
class Algorithm:
    """The matrices of F(m, r), with n = m + r - 1, or of another bilinear algorithm, with n multiplications.

    Attributes:
        outputs: A^T, m x n.
        weights: G, n x r.
        inputs: B^T, n x n; n x the inputs that are read.
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
        """n: multiplications."""
        return len(self.inputs)

    @cached_property
    def amplification(self) -> float:
        """How many times the roundings of a direct convolution its errors are, roughly; a product over the axes.

        The root mean square of what the rounded values of all multiplications are made of and go into, at the worst of
        the outputs. With 64 to 256 channels, the largest error was 1.6e-7 times this of the largest result.
        """
        sizes = [
            sum(float(g) ** 2 for g in weights) * sum(float(b) ** 2 for b in inputs)
            for weights, inputs in zip(self.weights, self.inputs, strict=True)
        ]
        worst = max(sum(float(a) ** 2 * size for a, size in zip(row, sizes, strict=True)) for row in self.outputs)
        return (worst / self.taps) ** 0.5

    @property
    def reads(self) -> int:
        """The inputs of one application."""
        return len(self.inputs[0])


@cache
def algorithm(tile: int) -> Algorithm:
    """F(tile, 3) with the points above; for tile 1, the multiplication by a single tap."""
    if tile == 1:
        one = ((Fraction(1),),)
        return Algorithm(one, one, one)
    return cook_toom(tile, TAPS, POINTS[tile])


@cache
def composed(tile: int, phases: tuple[tuple[Tap, ...], ...], stride: int) -> Algorithm:
    """An algorithm for interleaved convolutions: output number q * len(phases) + p is the sum over the taps of phase p
    of a kernel element times input `offset + q * stride`.

    Args:
        tile: outputs of each phase.
        phases: (kernel element, offset) of the taps of each, one offset after the other; 0 is the first of all offsets.
        stride: inputs from one output of a phase to its next.

    Returns:
        One whose transform of weights is cheap, as on the fly: the numbers that do not depend on the tap are in A^T.
    """
    outputs: list[list[Fraction]] = [[] for _ in range(tile * len(phases))]
    weights, inputs = list[list[Fraction]](), list[list[Fraction]]()
    elements = 1 + max(element for taps in phases for element, _ in taps)
    reads = 1 + max(offset for taps in phases for _, offset in taps) + (tile - 1) * stride
    for p, taps in enumerate(phases):
        for residue in range(stride):
            every = [tap for tap in taps if tap[1] % stride == residue]
            for some in _equal_parts(every, MAX_POSITIONS + 1 - tile):
                part = short(tile, len(some))
                for n in range(part.positions):
                    row, read = [Fraction(0)] * elements, [Fraction(0)] * reads
                    for (element, _), factor in zip(some, part.weights[n], strict=True):
                        row[element] = factor
                    for i, factor in enumerate(part.inputs[n]):
                        read[some[0][1] + i * stride] = factor
                    weights.append(row)
                    inputs.append(read)
                    for number, output in enumerate(outputs):
                        q, phase = divmod(number, len(phases))
                        output.append(part.outputs[q][n] if phase == p else Fraction(0))
    return Algorithm(_matrix(outputs), _matrix(weights), _matrix(inputs))


def _equal_parts(items: Sequence[Tap], longest: int) -> list[Sequence[Tap]]:
    count = -(-len(items) // longest)
    return [items[len(items) * n // count : len(items) * (n + 1) // count] for n in range(count)]


@cache
def short(tile: int, taps: int) -> Algorithm:
    """F(tile, taps), with rows 1, p, p^2, ... for the points p as G: few of its numbers are neither 0 nor 1."""
    if min(tile, taps) == 1:
        one = [[Fraction(i == n) for i in range(tile * taps)] for n in range(tile * taps)]
        ones = [[Fraction(1)] * (tile * taps)]
        return Algorithm(*map(_matrix, (one, _transposed(ones), one) if taps == 1 else (ones, one, one)))
    points = _POINTS[tile + taps - 1]
    plain = cook_toom(tile, taps, points)
    scales = [*(prod((p - q for q in points if q != p), start=Fraction(1)) for p in points), Fraction(1)]
    weights = [[scale * a for a in row] for scale, row in zip(scales, plain.weights, strict=True)]
    outputs = [[a / scale for scale, a in zip(scales, row, strict=True)] for row in plain.outputs]
    return Algorithm(_matrix(outputs), _matrix(weights), plain.inputs)


def _transposed(rows: Sequence[Sequence[Fraction]]) -> list[list[Fraction]]:
    return [list(column) for column in zip(*rows, strict=True)]


def left_inverse(matrix: Matrix) -> Matrix:
    """L with L matrix = 1, from as many rows as there are columns, the simplest that are independent."""
    size = len(matrix[0])
    by_simplicity = sorted(range(len(matrix)), key=lambda n: sum(map(bool, matrix[n])))
    reduced: list[list[Fraction]] = []
    for n in by_simplicity:
        # Gauss-Jordan, with the identity beside: what is left of a row after the rows before it.
        row = [*matrix[n], *(Fraction(n == k) for k in range(len(matrix)))]
        for other in reduced:
            pivot = _pivot(other)
            row = [a - row[pivot] * b for a, b in zip(row, other, strict=True)]
        if not any(row[:size]):
            continue
        row = [a / row[_pivot(row)] for a in row]
        pivot = _pivot(row)
        reduced = [[a - other[pivot] * b for a, b in zip(other, row, strict=True)] for other in reduced] + [row]
    assert len(reduced) == size
    return _matrix(row[size:] for row in sorted(reduced, key=_pivot))


def _pivot(row: Sequence[Fraction]) -> int:
    return next(n for n, a in enumerate(row) if a)


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


def _matrix(rows: Iterable[Iterable[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
