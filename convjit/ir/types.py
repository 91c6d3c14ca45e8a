"""MLX dtypes and primitive arguments as IR types and attributes, both ways."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx
from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    ComplexType,
    DenseArrayBase,
    Float16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, SSAValue, TypeAttribute

_UNSIGNED = Signedness.UNSIGNED

TYPE_OF_DTYPE: dict[mx.Dtype, TypeAttribute] = {
    mx.bool_: IntegerType(1),
    mx.int8: IntegerType(8),
    mx.int16: IntegerType(16),
    mx.int32: IntegerType(32),
    mx.int64: IntegerType(64),
    mx.uint8: IntegerType(8, _UNSIGNED),
    mx.uint16: IntegerType(16, _UNSIGNED),
    mx.uint32: IntegerType(32, _UNSIGNED),
    mx.uint64: IntegerType(64, _UNSIGNED),
    mx.float16: Float16Type(),
    mx.bfloat16: BFloat16Type(),
    mx.float32: Float32Type(),
    mx.float64: Float64Type(),
    mx.complex64: ComplexType(Float32Type()),
}
DTYPE_OF_TYPE = {t: d for d, t in TYPE_OF_DTYPE.items()}


@lru_cache(maxsize=1024)
def tensor_type(shape: tuple[int, ...], dtype: mx.Dtype) -> TensorType[Any]:
    """The IR type of an array."""
    return TensorType(TYPE_OF_DTYPE[dtype], shape)


def shape_of(type_: Attribute) -> tuple[int, ...]:
    assert isinstance(type_, TensorType)
    return type_.get_shape()


def without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` from its first extent that is not 1 on."""
    first = next((axis for axis, extent in enumerate(shape) if extent != 1), len(shape))
    return shape[first:]


def element_type(value: SSAValue) -> Attribute:
    """The type of a tensor's elements."""
    assert isinstance(value.type, TensorType)
    return value.type.get_element_type()


def dtype_of(type_: Attribute) -> mx.Dtype:
    assert isinstance(type_, TensorType)
    return DTYPE_OF_TYPE[type_.get_element_type()]


def to_attribute(value: object) -> Attribute:
    """A primitive's argument as an attribute.

    Raises:
        TypeError: if no attribute holds a value of this type.
    """
    if value is None:
        return UnitAttr()
    if isinstance(value, int):
        return _integer(int(value), 1 if isinstance(value, bool) else 64)
    if isinstance(value, float):
        return FloatAttr(value, Float64Type())
    if isinstance(value, str):
        return StringAttr(value)
    if isinstance(value, mx.Dtype):
        return TYPE_OF_DTYPE[value]
    if isinstance(value, (list, tuple)):
        if value and all(type(v) is int for v in value):
            return _integers(tuple(value))
        return ArrayAttr([to_attribute(v) for v in value])
    raise TypeError(f"no attribute for a primitive's argument of type {type(value).__name__}")


@lru_cache(maxsize=1024)
def _integer(value: int, width: int) -> Attribute:
    return IntegerAttr(value, IntegerType(width))


@lru_cache(maxsize=1024)
def _integers(values: tuple[int, ...]) -> Attribute:
    return DenseArrayBase.from_list(IntegerType(64), values)


def from_attribute(attribute: Attribute) -> Any:
    """The inverse of `to_attribute`; sequences come back as tuples."""
    match attribute:
        case UnitAttr():
            return None
        case IntegerAttr(value=value, type=IntegerType(width=width)):
            return bool(value.data) if width.data == 1 else value.data
        case FloatAttr(value=value):
            return value.data
        case StringAttr(data=data):
            return data
        case DenseArrayBase():
            return tuple(attribute.get_values())  # pyright: ignore[reportAttributeAccessIssue]
        case ArrayAttr(data=data):
            return tuple(from_attribute(a) for a in data)
        case _:
            return DTYPE_OF_TYPE[attribute]  # pyright: ignore[reportArgumentType]
