"""What `grouping` says is reduced together, against NumPy, behind random reshapes and transposes."""

from __future__ import annotations

from math import prod

import mlx.core as mx
import numpy as np
import pytest
from test_rearrange import random_shape
from xdsl.dialects import test as dialect
from xdsl.ir import SSAValue

from convjit.ir.mlx import PrimitiveOp
from convjit.ir.types import shape_of, tensor_type
from convjit.passes.grouping import Grouping, grouping


def value_of(shape: tuple[int, ...]) -> SSAValue:
    return dialect.TestOp(result_types=[tensor_type(shape, mx.float32)]).results[0]


def reshaped(value: SSAValue, shape: tuple[int, ...]) -> SSAValue:
    return PrimitiveOp("Reshape", [value], [tensor_type(shape, mx.float32)], (shape,)).results[0]


def transposed(value: SSAValue, axes: tuple[int, ...]) -> SSAValue:
    shape = tuple(shape_of(value.type)[axis] for axis in axes)
    return PrimitiveOp("Transpose", [value], [tensor_type(shape, mx.float32)], (axes,)).results[0]


def random_chain(rng: np.random.Generator) -> SSAValue:
    """Reshapes and transposes of images."""
    value = value_of((*(int(n) for n in rng.choice([1, 2, 3, 4, 6], 3)), int(rng.choice([1, 4, 6, 12]))))
    for _ in range(int(rng.integers(4))):
        shape = shape_of(value.type)
        if rng.random() < 0.5:
            value = reshaped(value, random_shape(rng, prod(shape)) or (1,))
        else:
            value = transposed(value, tuple(int(axis) for axis in rng.permutation(len(shape))))
    return value


def marked(found: Grouping, axes: tuple[int, ...]) -> np.ndarray:
    """For each element of what is normalised, in its own order, which statistics it has by the program."""
    places = np.arange(prod(shape_of(found.input.type))).reshape(shape_of(found.input.type))
    for step in found.steps:
        (argument,) = step.python_arguments
        places = places.reshape(argument) if step.primitive.data == "Reshape" else places.transpose(argument)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(places.shape))
    marks = np.broadcast_to(np.arange(prod(kept)).reshape(kept), places.shape)
    by_place = np.empty(places.size, int)
    by_place[places.ravel()] = marks.ravel()
    return by_place


@pytest.mark.parametrize("seed", range(300))
def test_elements_of_a_group_are_reduced_together(seed: int):
    rng = np.random.default_rng(seed)
    value = random_chain(rng)
    axes = tuple(axis for axis in range(len(shape_of(value.type))) if rng.random() < 0.5)
    found = grouping(value, axes, by_row=rng.random() < 0.2)
    if found is None:
        return
    images, pixels, groups, channels, interleaved = found.view
    shape = shape_of(found.input.type)
    assert (images * pixels, groups * channels) == (prod(shape[:-1]), shape[-1])
    parts = marked(found, axes).reshape(images, pixels, *((channels, groups) if interleaved else (groups, channels)))
    parts = np.moveaxis(parts, 3 if interleaved else 2, 1).reshape(images * groups, -1)
    assert (parts == parts[:, :1]).all() and len(set(parts[:, 0])) == len(parts)


def test_most_chains_are_seen_through():
    found = 0
    for seed in range(300):
        value = random_chain(np.random.default_rng(seed))
        found += grouping(value, (len(shape_of(value.type)) - 1,), by_row=False) is not None
    assert found > 200


def test_steps_that_do_not_help_stay():
    """Pixels of an image in one row: the channels are the same, and what follows reads them so."""
    x = value_of((2, 7, 5, 24))
    rows = reshaped(x, (2, 35, 24))
    assert grouping(rows, (2,), by_row=False) == Grouping(rows, (), (70, 1, 1, 24, False))
    first = transposed(x, (0, 3, 1, 2))
    assert grouping(first, (1,), by_row=False) == Grouping(x, (first.owner,), (70, 1, 1, 24, False))
    heads = reshaped(x, (2, 7, 5, 4, 6))
    assert grouping(heads, (4,), by_row=False) == Grouping(heads, (), (280, 1, 1, 6, False))
