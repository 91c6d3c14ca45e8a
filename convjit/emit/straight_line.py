"""A constant matrix times a vector, as straight-line code: no zeros, no factors of one, what rows share only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from convjit.bilinear import Matrix

Terms = dict[str, Fraction]
"""A sum: variables and what they are multiplied by, no zeros."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a language writes sums of multiples.

    Attributes:
        literal: a number -> its literal.
        fma: a product plus a term, with `{0}`, `{1}` for the factors and `{2}` for the term.
    """

    literal: Callable[[float], str]
    fma: str


@dataclass(frozen=True, slots=True)
class Code:
    """What computes a product.

    Attributes:
        lines: definitions `name = expression`, in order.
        results: one expression a row of the matrix.
    """

    lines: tuple[str, ...]
    results: tuple[str, ...]


def product(matrix: Matrix, inputs: Sequence[str], arithmetic: Arithmetic) -> Code:
    """`matrix` times the vector of variables `inputs`.

    Matrices of Cook and Toom for points p and -p have columns, or rows, that differ only in some signs. Of two such
    columns the sum and the difference of the inputs are what all rows need; two such rows are the sum and the
    difference of what they share.
    """
    definitions = _Definitions(arithmetic)
    define = definitions.define
    rows = _share_columns(matrix, inputs, definitions)
    results = [""] * len(rows)
    for i, k in combinations(range(len(rows)), 2):
        if results[i] or results[k] or not (shared := _shared(rows[i], rows[k])):
            continue
        same, other = define(f"same{i}", shared[0]), define(f"other{i}", shared[1])
        results[i] = define(f"y{i}", {same: Fraction(1), other: Fraction(1)})
        results[k] = define(f"y{k}", {same: Fraction(1), other: Fraction(-1)})
    for i, row in enumerate(rows):
        results[i] = results[i] or define(f"y{i}", row)
    return Code(tuple(definitions.lines), tuple(results))


class _Definitions:
    """The lines of a piece of code, as they are written."""

    def __init__(self, arithmetic: Arithmetic):
        self._arithmetic = arithmetic
        self.lines: list[str] = []

    def define(self, name: str, terms: Terms) -> str:
        """A variable that holds a sum; of one term that is not multiplied, that variable itself."""
        if len(terms) == 1 and 1 in terms.values():
            return next(iter(terms))
        self.lines.append(f"{name} = {self._sum(terms)}")
        return name

    def _sum(self, terms: Terms) -> str:
        """Terms that are added or subtracted first, then those that are multiplied."""
        text = ""
        for x, a in sorted(terms.items(), key=lambda term: (abs(term[1]) != 1, term[1] < 0)):
            literal = self._arithmetic.literal(float(a))
            if not text:
                text = {Fraction(1): x, Fraction(-1): f"-{x}"}.get(a, f"{literal} * {x}")
            elif abs(a) == 1:
                text = f"{text} {'+' if a > 0 else '-'} {x}"
            else:
                text = self._arithmetic.fma.format(literal, x, text)
        return text


def _share_columns(matrix: Matrix, inputs: Sequence[str], definitions: _Definitions) -> list[Terms]:
    """The rows, with sums and differences of inputs in place of inputs whose columns differ only in some signs."""
    columns = list(zip(*matrix, strict=True))
    rows: list[Terms] = [{} for _ in matrix]
    left = dict(enumerate(inputs))
    for j, k in combinations(range(len(inputs)), 2):
        signs = {b / a for a, b in zip(columns[j], columns[k], strict=True) if a}
        alike = all(abs(a) == abs(b) for a, b in zip(columns[j], columns[k], strict=True))
        if not (j in left and k in left and alike and signs == {Fraction(1), Fraction(-1)}):
            continue
        x, y = left.pop(j), left.pop(k)
        total = definitions.define(f"sum{j}", {x: Fraction(1), y: Fraction(1)})
        difference = definitions.define(f"difference{j}", {x: Fraction(1), y: Fraction(-1)})
        for row, a, b in zip(rows, columns[j], columns[k], strict=True):
            if a:
                row[total if a == b else difference] = a
    for j, x in left.items():
        for row, a in zip(rows, columns[j], strict=True):
            if a:
                row[x] = a
    return rows


def _shared(row: Terms, other: Terms) -> tuple[Terms, Terms] | None:
    """Two sums of which `row` is the sum and `other` the difference, if their terms differ in some signs only."""
    same = {x: a for x, a in row.items() if other.get(x) == a}
    opposite = {x: a for x, a in row.items() if other.get(x) == -a}
    return (same, opposite) if same and opposite and len(same) + len(opposite) == len(row) == len(other) else None
