"""Convolutions with every transformation of MLX, to any order: `grad`, `vjp`, `jvp`, `vmap` and their compositions.

MLX 0.32 has no `jvp` of a convolution. But a convolution y(x, w) is linear in the input and in the weight, and so are
its two adjoints, in the cotangent and the other operand:

    y(x, w)       tangent y(dx, w) + y(x, dw)         cotangents x(c, w), w(x, c)
    x(c, w)       the gradient of <c, y> by x         cotangents y(., w), w(., c)
    w(x, c)       the gradient of <c, y> by w         cotangents x(c, .), y(x, .)

So the three of them are closed under differentiation, and under `vmap`, which makes another three of the same kind.
While a compiled function runs as plain MLX, under a transformation, its convolutions are of this kind; values and
gradients are MLX's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import mlx.core as mx

from convjit.tracing.intercept import convolutions_intercepted
from convjit.tracing.tracers import exporting

Product = Callable[[mx.array, mx.array], mx.array]
Axes = tuple[int | None, int | None]
"""The axis of each operand that `vmap` goes along, or None for one that it does not."""


def differentiable_convolutions() -> AbstractContextManager[None]:
    """While this is entered, convolutions of this thread have all transformations of MLX.

    `mx.export_function` cannot write such ones into a file; where it can be told (see `tracers.exporting`), they stay
    as they are.
    """
    return nullcontext() if exporting() else convolutions_intercepted(_differentiable)


def _differentiable(
    name: str, original: Callable[..., mx.array], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> mx.array:
    x, w, *rest = args if len(args) > 1 else (None, None)
    if not isinstance(x, mx.array) or not isinstance(w, mx.array):
        return original(*args, **kwargs)  # raises
    in_groups = x.shape[-1] != w.shape[-1]
    return _Bilinear(lambda x, w: original(x, w, *rest, **kwargs), _Like.of(x), _Like.of(w), in_groups).y(x, w)


class _Like(NamedTuple):
    """The shape and dtype of an operand."""

    shape: tuple[int, ...]
    dtype: mx.Dtype

    @staticmethod
    def of(array: mx.array) -> _Like:
        return _Like(array.shape, array.dtype)

    def zeros(self) -> mx.array:
        return mx.zeros(self.shape, self.dtype)

    def batched(self, axis: int | None, size: int) -> _Like:
        return self if axis is None else _Like((size, *self.shape), self.dtype)


class _Bilinear:
    """A product that is linear in each of its operands, and its adjoints, with all transformations.

    Args:
        product: the product, as MLX computes it.
        x, w: what its operands are like.
        in_groups: is it a convolution in groups? MLX 0.32 mixes those up under `vmap` over the weight alone.
    """

    def __init__(self, product: Product, x: _Like, w: _Like, in_groups: bool):
        self._product, self._x, self._w, self._in_groups = product, x, w, in_groups

    def y(self, x: mx.array, w: mx.array) -> mx.array:
        """The product itself."""
        return _transformable(
            self._product,
            adjoints=lambda x, w, c: (self.x(c, w), self.w(x, c)),
            vmapped=lambda x, w, axes, size: self._vmapped(axes, size).y(self._input(x, axes, size), w),
        )(x, w)

    def x(self, c: mx.array, w: mx.array) -> mx.array:
        """The gradient of <c, y(x, w)> by x."""
        return _transformable(
            lambda c, w: mx.vjp(lambda x: self._product(x, w), [self._x.zeros()], [c])[1][0],
            adjoints=lambda c, w, dx: (self.y(dx, w), self.w(dx, c)),
            vmapped=lambda c, w, axes, size: self._vmapped((0, axes[1]), size).x(_spread(c, axes[0], size), w),
        )(c, w)

    def w(self, x: mx.array, c: mx.array) -> mx.array:
        """The gradient of <c, y(x, w)> by w."""
        return _transformable(
            lambda x, c: mx.vjp(lambda w: self._product(x, w), [self._w.zeros()], [c])[1][0],
            adjoints=lambda x, c, dw: (self.x(c, dw), self.y(x, dw)),
            vmapped=lambda x, c, axes, size: self._vmapped((axes[0], 0), size).w(
                self._input(x, (axes[0], 0), size), _spread(c, axes[1], size)
            ),
        )(x, c)

    def _vmapped(self, axes: Axes, size: int) -> _Bilinear:
        """The product of operands with a new first axis of this size, where `axes` has one."""
        w = None if axes[1] is None else 0
        x = None if axes[0] is None and not self._mixes(axes) else 0
        product, in_groups = mx.vmap(self._product, in_axes=(x, w)), self._in_groups or (x, w) == (0, 0)
        return _Bilinear(product, self._x.batched(x, size), self._w.batched(w, size), in_groups)

    def _input(self, x: mx.array, axes: Axes, size: int) -> mx.array:
        """The input as `_vmapped` takes it."""
        return _spread(x, axes[0], size) if self._mixes(axes) else x

    def _mixes(self, axes: Axes) -> bool:
        return self._in_groups and axes[0] is None and axes[1] is not None


def _spread(array: mx.array, axis: int | None, size: int) -> mx.array:
    return mx.broadcast_to(array, (size, *array.shape)) if axis is None else array


def _transformable(
    product: Product,
    adjoints: Callable[[mx.array, mx.array, mx.array], tuple[mx.array, mx.array]],
    vmapped: Callable[[mx.array, mx.array, Axes, int], mx.array],
) -> Product:
    """A bilinear product with rules for all transformations.

    Args:
        product: the product, as MLX computes it; its own rules are not used.
        adjoints: (a, b, cotangent) -> the cotangents of a and b.
        vmapped: (a, b, axes, size) -> the products along the first axes of a and b, those that `axes` has.
    """

    def plain(a: mx.array, b: mx.array) -> mx.array:
        # MLX walks through a custom function to what it was computed from, unless the gradient stops there.
        return product(mx.stop_gradient(a), mx.stop_gradient(b))

    def jvp(primals: Sequence[mx.array], tangents: Sequence[mx.array | None]) -> mx.array:
        (a, b), (da, db) = primals, tangents
        if da is None or db is None:
            return custom(a if da is None else da, b if db is None else db)
        return custom(da, b) + custom(a, db)

    def vjp(primals: Sequence[mx.array], cotangent: mx.array, _output: mx.array) -> tuple[mx.array, mx.array]:
        a, b = primals
        return adjoints(a, b, cotangent)

    def vmap(operands: Sequence[mx.array], axes: Axes) -> tuple[mx.array, int]:
        size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
        a, b = (a if axis is None else mx.moveaxis(a, axis, 0) for a, axis in zip(operands, axes, strict=True))
        return vmapped(a, b, axes, size), 0

    custom: Any = mx.custom_function(plain)
    custom.jvp(jvp)
    custom.vjp(vjp)
    custom.vmap(vmap)
    return custom
