"""What `inspect.explain` tells of a compiled function, as plain values that print as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PLAIN = "plain MLX"
"""The kernel of a convolution that is not ours."""

ZEROS = "zeros"
"""The kernel of a convolution whose input is empty: it has nothing to sum."""

REPRODUCE = "python -m convjit repro"
"""The command that runs a kernel that failed again, from the bundle it left."""


def table(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = [titles, ["-" * w for w in widths], *cells]
    return ["  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines]


@dataclass(frozen=True, slots=True)
class Row:
    """One convolution or linear layer of the user's program.

    Attributes:
        layer: the module's path, or the weight's name.
        convolution: its shapes and window, in words.
        fused: the MLX ops that its kernel does as well.
        kernel: the template and its choices, "zeros", or "plain MLX".
        note: why it is not compiled, or not as the backend would rather have it, or what ends its epilogue.
        is_linear: is it a product with a matrix?
    """

    layer: str
    convolution: str
    fused: str
    kernel: str
    note: str
    is_linear: bool = False


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A kernel of elementwise ops that no convolution took, a pool or a norm.

    Attributes:
        name: such as "elementwise.17", "pool" or "norm", for `inspect.source`.
        shape: what it runs over, and how many of its results are sums over all axes but the last; a pool's
            window, a norm's groups and pixels.
        ops: the MLX ops that it does.
        kernel: the template and its choices, or "plain MLX".
        note: why it is not compiled, or not as the backend would rather have it.
    """

    name: str
    shape: str
    ops: str
    kernel: str
    note: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` returns: `str` is a table.

    Attributes:
        name: the compiled function.
        backend: the backend's name, or "plain MLX".
        rows: one for each convolution of the program, and each linear layer on the CPU backend, in order.
        reasons: what runs as plain MLX, and why.
        captured: (name, shape, bytes) of arrays that the program froze.
        others: one for each other kernel, in order. In the table, equal ones share a line.
    """

    name: str
    backend: str
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    captured: tuple[tuple[str, tuple[int, ...], int], ...]
    others: tuple[OtherRow, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.name}: {self._summary()}"]
        if self.rows:
            titles = ("layer", "convolution", "fused into it", "kernel", "note")
            lines += table(titles, [(r.layer, r.convolution, r.fused, r.kernel, r.note) for r in self.rows])
        if self.others:
            titles = ("other kernel", "times", "shape", "ops", "kernel", "note")
            lines += ["", *table(titles, self._cells_of_others())]
        lines += [f"not compiled: {reason}" for reason in self.reasons]
        lines += [f"frozen: {name} {shape}, {size:,} bytes" for name, shape, size in self.captured]
        return "\n".join(lines)

    def _cells_of_others(self) -> list[tuple[str, ...]]:
        """A line for each kind, with the name of the first."""
        kinds: dict[tuple[str, ...], list[str]] = {}
        for row in self.others:
            kinds.setdefault((row.shape, row.ops, row.kernel, row.note), []).append(row.name)
        return [(names[0], str(len(names)), *kind) for kind, names in kinds.items()]

    def _summary(self) -> str:
        if self.backend == PLAIN:
            return PLAIN
        convolutions, products = ([r for r in self.rows if r.is_linear == is_linear] for is_linear in (False, True))
        counts = [f"{_ours(convolutions)} of {len(convolutions)} convolutions"] if convolutions or not products else []
        counts += [f"{_ours(products)} of {len(products)} linear layers"] if products else []
        return f"{' and '.join(counts)} on {self.backend} kernels"


def _ours(rows: Sequence[Row]) -> int:
    return sum(row.kernel not in (PLAIN, ZEROS) for row in rows)
