"""`raise-rearrange`: where elements come from, against NumPy's strides; and what becomes of a kernel that is wrong."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from test_pools import break_kernels
from xdsl.dialects import test as dialect

import convjit
from convjit.ir.types import tensor_type
from convjit.kernel import Rearrange
from convjit.passes.moves import Piece, Strided, framed
from convjit.proof import trust


def random_view(rng: np.random.Generator) -> tuple[np.ndarray, Strided]:
    """A slice of a transposed, repeated array, and what it is of its base."""
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 6], int(rng.integers(1, 5))))
    base = np.arange(np.prod(shape))
    value = dialect.TestOp(result_types=[tensor_type(shape, mx.float32)]).results[0]
    view, at = base.reshape(shape), Strided.whole(value)
    order = rng.permutation(len(shape)).tolist()
    view = view.transpose(order)
    at = Strided(value, 0, view.shape, tuple(at.strides[axis] for axis in order))
    starts = [int(rng.integers(n)) if rng.random() < 0.3 else 0 for n in view.shape]
    steps = [int(rng.choice([1, 1, 2, -1])) for _ in view.shape]
    view = view[tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))]
    at = at.box(starts, steps, view.shape)
    if rng.random() < 0.3:
        wide = (2, *view.shape)
        view, at = np.broadcast_to(view, wide), at.broadcast(wide)
    return view, at


def random_shape(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    shape: list[int] = []
    while size > 1:
        shape.append(int(rng.choice([n for n in range(1, size + 1) if size % n == 0])))
        size //= shape[-1]
    return (*shape, *[1] * int(rng.integers(2)))


def can_be_viewed(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    try:
        array.view().shape = shape
    except AttributeError:
        return False
    return True


@pytest.mark.parametrize("seed", range(200))
def test_strides_are_those_of_numpy(seed: int):
    rng = np.random.default_rng(seed)
    view, at = random_view(rng)
    shape = random_shape(rng, view.size)
    base = view
    while base.base is not None:
        base = base.base
    for want, found in ((view, at), (view.reshape(shape), at.reshaped(shape))):
        assert (found is not None) == (want is view or can_be_viewed(view, shape))
        if found is not None:
            got = as_strided(base[found.offset :], found.shape, [8 * step for step in found.strides])
            np.testing.assert_array_equal(got, want)
            assert found.is_whole == (want.size == base.size and (want.ravel() == base).all())


@pytest.mark.parametrize("seed", range(100))
def test_pieces_are_those_of_assigned_boxes(seed: int):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, int(rng.integers(1, 4))).tolist())
    want = np.zeros(shape, np.int64)
    values = [dialect.TestOp(result_types=[tensor_type(shape, mx.float32)]).results[0] for _ in range(5)]
    pieces = [Piece((0,) * len(shape), Strided.whole(values[0]))]
    for number, value in enumerate(values[1:], 1):
        starts = tuple(int(rng.integers(n)) for n in shape)
        extents = tuple(int(rng.integers(1, n - start + 1)) for n, start in zip(shape, starts, strict=True))
        want[tuple(slice(start, start + n) for start, n in zip(starts, extents, strict=True))] = number
        pieces = framed(pieces, Piece(starts, Strided.whole(value).box(starts, (1,) * len(shape), extents)))
    got, places = np.full(shape, -1), np.full(shape, -1)
    for starts, elements in pieces:
        box = tuple(slice(start, start + n) for start, n in zip(starts, elements.shape, strict=True))
        assert (got[box] == -1).all()
        got[box] = values.index(elements.base)
        places[box] = as_strided(
            np.arange(want.size)[elements.offset :], elements.shape, [8 * step for step in elements.strides]
        )
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(places, np.arange(want.size).reshape(shape))


def test_a_wrong_kernel_leaves_all_moves_to_mlx(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    break_kernels(monkeypatch, lambda kernel: isinstance(kernel, Rearrange))
    conv, x = nn.Conv2d(3, 8, 3), mx.random.normal((1, 6, 6, 3), key=mx.random.key(1))

    def function(x: mx.array) -> mx.array:
        a, b = mx.split(conv(x), 2, axis=-1)
        return mx.concatenate([nn.relu(a) * b, b], axis=-1)

    fast = convjit.compile(function)
    with pytest.warns(convjit.FallbackWarning, match="rearrange.* stays plain MLX: .* its kernel gave "):
        got = fast(x)
    np.testing.assert_allclose(got, function(x), atol=1e-5)
    ir = convjit.inspect.ir(fast)
    assert "conv.rearrange" not in ir and '"Split"' in ir and "conv.elementwise" in ir
