"""The arithmetic of a convolution: shapes, padding, work. Plain Python: no IR, no MLX.

All shapes are channels last, as in MLX: an input is (N, *spatial, C), a weight (O, *kernel, C / groups),
an output (N, *spatial, O). A window has one entry a spatial axis, so 1D, 2D and 3D are the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


class GeometryError(ValueError):
    """A convolution that does not exist: its message holds the numbers that disagree."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution walks its input: the arguments of MLX's `Convolution`, in its order; one entry a spatial axis.

    Without entries it is that of a product with a matrix, see `Geometry.of_product`.

    A transposed convolution has its stride in `input_dilation` (zeros between input elements), `flip` set (the
    kernel is mirrored) and its output padding inside `pad_hi`. Padding is in elements of the dilated input.
    """

    strides: tuple[int, ...]
    pad_lo: tuple[int, ...]
    pad_hi: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    groups: int = 1
    flip: bool = False

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.strides)

    @property
    def transposed(self) -> bool:
        return any(d > 1 for d in self.input_dilation)

    def out_size(self, in_size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
        """The output extent an axis; zero or negative where the kernel does not fit."""
        return tuple(
            ((n - 1) * idil + 1 + lo + hi - ((k - 1) * kdil + 1)) // s + 1
            for n, k, s, lo, hi, kdil, idil in zip(
                in_size,
                kernel,
                self.strides,
                self.pad_lo,
                self.pad_hi,
                self.kernel_dilation,
                self.input_dilation,
                strict=True,
            )
        )


def plain_window(rank: int, groups: int = 1) -> Window:
    """Stride 1, no padding, no dilation."""
    one, zero = (1,) * rank, (0,) * rank
    return Window(one, zero, zero, one, one, groups)


@dataclass(frozen=True, slots=True)
class Geometry:
    """One convolution, completely: extents and window."""

    batch: int
    in_size: tuple[int, ...]
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    window: Window

    @classmethod
    def of_shapes(cls, x: tuple[int, ...], w: tuple[int, ...], window: Window) -> Geometry:
        """The geometry of an input (N, *spatial, C) and a weight (O, *kernel, C / groups).

        Raises:
            GeometryError: if the two do not make a convolution.
        """
        if window.rank == 0:
            return cls.of_product(x, w)
        if len(x) != window.rank + 2 or len(w) != window.rank + 2:
            raise GeometryError(
                f"a {window.rank}D convolution takes an input and a weight of rank {window.rank + 2}, "
                f"got shapes {x} and {w}"
            )
        if min(window.strides + window.kernel_dilation + window.input_dilation) < 1:
            raise GeometryError(
                f"strides {window.strides}, kernel dilation {window.kernel_dilation} and "
                f"input dilation {window.input_dilation} must all be at least 1"
            )
        if window.groups < 1:
            raise GeometryError(f"groups must be at least 1, got {window.groups}")
        n, *in_size, c = x
        o, *kernel, c_group = w
        if c == 0 or c_group == 0:
            raise GeometryError(f"input {x} and weight {w} must have at least one channel")
        if o == 0:
            raise GeometryError(f"weight {w} has no output channels")
        if min(kernel) == 0:
            raise GeometryError(f"weight {w} has an empty kernel")
        if c != c_group * window.groups:
            expects = f"expects {c_group * window.groups}"
            if window.groups > 1:
                expects += f" ({window.groups} groups of {c_group})"
            raise GeometryError(f"input has {c} channels but weight {w} {expects}")
        if o % window.groups:
            raise GeometryError(f"weight {w} has {o} output channels, not a multiple of {window.groups} groups")
        geometry = cls(n, tuple(in_size), c, o, tuple(kernel), window)
        if min(geometry.out_size) < 1:
            raise GeometryError(
                f"kernel {geometry.kernel} with dilation {window.kernel_dilation} is larger than the padded input "
                f"{geometry.padded_size}"
            )
        return geometry

    @classmethod
    def of_product(cls, x: tuple[int, ...], matrix: tuple[int, ...]) -> Geometry:
        """The pointwise convolution that multiplies an array (..., C) by a matrix (O, C) along its last axis.

        Two axes (M, C) are a row of M pixels, (1, M, C); more are (N, *spatial, C). With matrices (N, O, C), one for
        each image, the array is (N, M, C).

        Raises:
            GeometryError: if the two have no product, or more axes than a convolution has.
        """
        if not (len(matrix) == 2 <= len(x) <= 5 or (len(matrix) == len(x) == 3 and matrix[0] == x[0])):
            raise GeometryError(
                "a product takes an input of rank 2 to 5 and a matrix, or an input of rank 3 and a matrix for each "
                f"image, got shapes {x} and {matrix}"
            )
        pixels = x if len(x) > 2 else (1, *x)
        rank = len(pixels) - 2
        *_, outputs, channels = matrix
        return cls.of_shapes(pixels, (outputs, *(1,) * rank, channels), plain_window(rank))

    @property
    def rank(self) -> int:
        return self.window.rank

    @property
    def out_size(self) -> tuple[int, ...]:
        return self.window.out_size(self.in_size, self.kernel)

    @property
    def padded_size(self) -> tuple[int, ...]:
        """The extent of the input after dilation and padding."""
        w = self.window
        return tuple(
            (n - 1) * d + 1 + lo + hi
            for n, d, lo, hi in zip(self.in_size, w.input_dilation, w.pad_lo, w.pad_hi, strict=True)
        )

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.in_size, self.in_channels)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, *self.kernel, self.in_channels // self.window.groups)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.out_size, self.out_channels)

    @property
    def flops(self) -> int:
        """Two for each multiply-add; a transposed convolution counts those of its definition, not its zeros."""
        pixels = prod(self.in_size) if self.window.transposed else prod(self.out_size)
        per_pixel = prod(self.kernel) * self.out_channels * (self.in_channels // self.window.groups)
        return 2 * self.batch * pixels * per_pixel

    def in_words(self, *, batch: bool = False) -> str:
        """In a few words: `56x56x64 -> 56x56x128, k 3x3, s 2, p 1`; with the batch, if wanted, in front."""
        window = self.window
        words = [f"{_by(self.in_shape[not batch :])} -> {_by(self.out_shape[1:])}, k {_by(self.kernel)}"]
        strides = window.input_dilation if window.transposed else window.strides
        if max(strides) > 1:
            words.append(f"{'transposed ' if window.transposed else ''}s {_short(strides)}")
        if any(window.pad_lo + window.pad_hi):
            low, high = _short(window.pad_lo), _short(window.pad_hi)
            words.append(f"p {low}" if low == high else f"p {low}:{high}")
        if max(window.kernel_dilation) > 1:
            words.append(f"d {_short(window.kernel_dilation)}")
        if window.groups > 1:
            words.append("depthwise" if window.groups == self.in_channels else f"groups {window.groups}")
        return ", ".join(words)


def product_in_words(x: tuple[int, ...], outputs: int) -> str:
    """A product of (..., C) with a matrix (O, C), as `Geometry.in_words`: `1x56x56x96 -> 56x56x384, linear`."""
    return f"{_by(x)} -> {_by((*x[1:-1], outputs))}, linear"


def _by(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _short(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else _by(numbers)
