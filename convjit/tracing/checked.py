"""Convolution calls that are checked before MLX sees them.

MLX 0.32 does not survive every bad argument: no channels or no groups end the process with a signal, no output
channels or an empty kernel end it inside BLAS, a kernel larger than its padded input by less than a stride reads
beyond the input. While a user's function is captured, its calls of `mx.conv*` are therefore validated first.
"""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.geometry import Geometry, GeometryError, Window
from convjit.tracing.intercept import convolutions_intercepted

NameOf = Callable[[object], str | None]
"""The path of a module in the user's model, such as "layers.0.conv1", or None for a module it does not know."""

_MAX_FRAMES = 8
"""How many callers are asked for a `self`: a layer calls `mx.conv2d` itself or through a helper or two."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How MLX reads a function's arguments.

    Attributes:
        signature: the function's own, for the names and defaults of its arguments.
        rank: the spatial rank, or None for that of the input (MLX's `conv1d` of a 2D input is a 2D convolution).
        lengths: the lengths that a sequence of ints may have, or None for 0, 1 or the spatial rank.
    """

    signature: inspect.Signature
    rank: int | None
    lengths: tuple[int, ...] | None


def _form(names: str, rank: int | None, lengths: tuple[int, ...] | None) -> _Form:
    """The form of `f(input, weight, /, names..., *, stream)`."""
    parameter = inspect.Parameter
    defaults = {"padding": 0, "output_padding": 0, "flip": False}
    parameters = [parameter(name, parameter.POSITIONAL_ONLY) for name in ("input", "weight")]
    for name in names.split():
        parameters.append(parameter(name, parameter.POSITIONAL_OR_KEYWORD, default=defaults.get(name, 1)))
    parameters.append(parameter("stream", parameter.KEYWORD_ONLY, default=None))
    return _Form(inspect.Signature(parameters), rank, lengths)


_CONV = "stride padding dilation groups"
_TRANSPOSE = "stride padding dilation output_padding groups"
_GENERAL = "stride padding kernel_dilation input_dilation groups flip"

_FORMS = {
    "conv1d": _form(_CONV, None, ()),
    "conv2d": _form(_CONV, 2, (2,)),
    "conv3d": _form(_CONV, 3, (3,)),
    "conv_transpose1d": _form(_TRANSPOSE, 1, ()),
    "conv_transpose2d": _form(_TRANSPOSE, 2, (2,)),
    "conv_transpose3d": _form(_TRANSPOSE, 3, (3,)),
    "conv_general": _form(_GENERAL, None, None),
}


def _ints(what: str, value: Any, rank: int, lengths: tuple[int, ...], default: int) -> tuple[int, ...]:
    """`value`, an int or a sequence of as many ints as one of `lengths`, as one int a spatial axis."""
    try:
        return (operator.index(value),) * rank
    except TypeError:
        pass
    expected = " or ".join(["an int", *(f"{n} ints" for n in lengths if n > 1)])
    try:
        ints = tuple(operator.index(v) for v in value)
    except TypeError:
        raise TypeError(f"{what} must be {expected}, got {value!r}") from None
    if len(ints) not in lengths:
        raise GeometryError(f"{what} must be {expected}, got {value!r}")
    return ints if len(ints) == rank else (ints or (default,)) * rank


def _groups(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"groups must be an int, got {value!r}") from None


def _rank(form: _Form, x: mx.array, w: mx.array) -> int:
    if form.rank is None and not 3 <= x.ndim <= 5:
        raise GeometryError(f"a convolution takes an input of rank 3, 4 or 5, got shape {x.shape}")
    rank = x.ndim - 2 if form.rank is None else form.rank
    if x.ndim != rank + 2 or w.ndim != rank + 2:
        raise GeometryError(
            f"a {rank}D convolution takes an input and a weight of rank {rank + 2}, got shapes {x.shape} and {w.shape}"
        )
    return rank


def _window(form: _Form, rank: int, kernel: tuple[int, ...], given: dict[str, Any]) -> Window:
    """The arguments that MLX's public functions hand to its `Convolution`."""
    lengths = (0, 1, rank) if form.lengths is None else form.lengths

    def ints(name: str, default: int) -> tuple[int, ...]:
        return _ints(name, given[name], rank, lengths, default)

    one, stride, groups = (1,) * rank, ints("stride", 1), _groups(given["groups"])
    if "flip" in given:
        try:
            lo = hi = ints("padding", 0)
        except TypeError:
            if not hasattr(given["padding"], "__len__") or len(given["padding"]) != 2:
                raise
            lo, hi = (_ints("padding", side, rank, lengths, 0) for side in given["padding"])
        return Window(
            stride, lo, hi, ints("kernel_dilation", 1), ints("input_dilation", 1), groups, bool(given["flip"])
        )
    dilation, padding = ints("dilation", 1), ints("padding", 0)
    if "output_padding" not in given:
        return Window(stride, padding, padding, dilation, one, groups)
    lo = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True))
    hi = tuple(p + extra for p, extra in zip(lo, ints("output_padding", 0), strict=True))
    return Window(one, lo, hi, dilation, stride, groups, flip=True)


def _crop(size: tuple[int, ...], window: Window) -> tuple[tuple[int, ...], Window]:
    """The input's extents and the window after negative padding: MLX takes it off the undilated input."""
    lo, hi = window.pad_lo, window.pad_hi
    crops = tuple(max(0, -a) + max(0, -b) for a, b in zip(lo, hi, strict=True))
    if any(crop > n for crop, n in zip(crops, size, strict=True)):
        raise GeometryError(f"padding {lo} before and {hi} after takes more off than the input has: {size}")
    size = tuple(n - crop for n, crop in zip(size, crops, strict=True))
    return size, replace(window, pad_lo=tuple(max(0, p) for p in lo), pad_hi=tuple(max(0, p) for p in hi))


def _check(form: _Form, given: dict[str, Any]) -> None:
    """Validate one call.

    Raises:
        TypeError: an argument is of a type that MLX does not take.
        GeometryError: the arguments do not make a convolution, or one that MLX gets wrong.
    """
    x, w = given["input"], given["weight"]
    for what, array in (("input", x), ("weight", w)):
        if not isinstance(array, mx.array):
            raise TypeError(f"{what} must be an mx.array, got {type(array).__name__}: convert it with mx.array(...)")
    if not mx.issubdtype(x.dtype, mx.floating):
        raise GeometryError(f"input has dtype {_name(x.dtype)} but must be floating-point: use .astype(mx.float32)")
    if mx.issubdtype(w.dtype, mx.complexfloating):
        raise GeometryError(
            f"weight has dtype {_name(w.dtype)}, of which MLX drops the imaginary part: convolve both parts"
        )
    rank = _rank(form, x, w)
    size, window = _crop(x.shape[1:-1], _window(form, rank, w.shape[1:-1], given))
    expected = w.shape[-1] * window.groups
    if x.shape[-1] != expected == x.shape[1]:
        raise GeometryError(
            f"input has {x.shape[-1]} channels but weight {w.shape} expects {expected}: channels come last, and in "
            f"{x.shape} they seem to come first; transpose it, or use a layer of convjit.nn with permute=True"
        )
    Geometry.of_shapes((x.shape[0], *size, x.shape[-1]), w.shape, window)
    if rank == 3 and window.groups > 1:
        raise GeometryError(
            f"MLX has no 3D convolutions of {window.groups} groups: use convjit.nn.Conv3d or ConvTranspose3d"
        )


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


def _layer(name_of: NameOf) -> str:
    """The quoted path of the module that makes the call, with a leading space; empty for the whole model, and if no
    known module does."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    for _ in range(_MAX_FRAMES):
        if frame is None:
            break
        module = frame.f_locals.get("self")
        path = name_of(module) if isinstance(module, nn.Module) else None
        if path is not None:
            return f" '{path}'" if path else ""
        frame = frame.f_back
    return ""


@contextmanager
def checked_convolutions(name_of: NameOf) -> Generator[None]:
    """While this is entered, bad arguments of this thread's `mx.conv*` calls raise before MLX sees them.

    Error messages begin with the function and, where the call comes from inside a module that `name_of` knows, its
    path: "conv2d 'layers.0.conv1': input has 4 channels but weight (64, 7, 7, 3) expects 3". Good calls reach MLX
    with exactly the arguments given. May be nested, and entered in several threads at once.

    The calls raise:
        TypeError: an argument is of a type that MLX does not take.
        GeometryError: the arguments do not make a convolution, or one that MLX gets wrong.
    """

    def checked(
        name: str, original: Callable[..., mx.array], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> mx.array:
        form = _FORMS.get(name)
        if form is None:
            return original(*args, **kwargs)
        try:
            bound = form.signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # raises, and lists the arguments it takes
        bound.apply_defaults()
        try:
            _check(form, bound.arguments)
        except (TypeError, GeometryError) as error:
            kind = TypeError if isinstance(error, TypeError) else GeometryError
            raise kind(f"{name}{_layer(name_of)}: {error}") from None
        return original(*args, **kwargs)

    with convolutions_intercepted(checked):
        yield
