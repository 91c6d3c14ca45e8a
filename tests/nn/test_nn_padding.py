"""Padding as it is written, and padding modes and channels-first layers against PyTorch."""

from itertools import product

import mlx.core as mx
import numpy as np
import pytest

import convjit
from convjit.nn import Conv1d, Conv2d, Conv3d
from convjit.nn.padding import MODES, entries

FORMS = [
    (1, 2, ((2, 2),)),
    (1, (2,), ((2, 2),)),
    (1, (2, 1), ((2, 1),)),
    (1, ((2, 1),), ((2, 1),)),
    (1, "causal", ("causal",)),
    (2, 0, ((0, 0), (0, 0))),
    (2, [1, 2], ((1, 1), (2, 2))),
    (2, (1, 2, 3, 4), ((1, 2), (3, 4))),
    (2, ((1, 2), (3, 4)), ((1, 2), (3, 4))),
    (2, (1, (3, 4)), ((1, 1), (3, 4))),
    (2, ("causal", (3, 4)), ("causal", (3, 4))),
    (2, "same", ("same", "same")),
    (2, np.array(1), ((1, 1), (1, 1))),
    (3, (1, 2, 3), ((1, 1), (2, 2), (3, 3))),
    (3, (1, 2, 3, 4, 5, 6), ((1, 2), (3, 4), (5, 6))),
    (3, ("causal", "same", 1), ("causal", "same", (1, 1))),
]


@pytest.mark.parametrize("rank, padding, expected", FORMS)
def test_forms(rank, padding, expected):
    assert entries(padding, rank) == expected


@pytest.mark.parametrize("rank, padding", [(1, (1, 2, 3)), (2, (1, 2, 3)), (2, ()), (3, (1, 2)), (2, ((1, 2, 3), 1))])
@pytest.mark.parametrize("kind", [tuple, list])
def test_wrong_lengths(rank, padding, kind):
    with pytest.raises(ValueError, match="padding must be an int, 'same', 'valid', 'causal'"):
        entries(kind(padding), rank)


@pytest.mark.parametrize(
    "padding", ["full", 1.5, None, ("same", None), (1.0, 1.0), ("same", "same", 1, 1), np.array([1, 2])]
)
def test_wrong_types(padding):
    with pytest.raises(ValueError, match="padding must be an int, 'same', 'valid', 'causal'"):
        entries(padding, 2)


@pytest.mark.parametrize("padding", [-1, (0, -1), (0, 0, -1, 0), ((0, -1), 0)])
def test_negative(padding):
    with pytest.raises(ValueError, match="slice the input instead"):
        entries(padding, 2)


@pytest.mark.parametrize("size, kernel, stride, dilation", list(product((1, 6, 9), (1, 3, 4), (1, 2, 3), (1, 2))))
def test_extents_of_words(size, kernel, stride, dilation):
    """ "same" and "causal" make ceil(size / stride) outputs; transposed, size * stride."""
    for word in ("same", "causal"):
        layer = Conv1d(1, 1, kernel, stride, word, dilation)
        assert layer(mx.zeros((1, size, 1))).shape == (1, -(-size // stride), 1)
        up = convjit.nn.ConvTranspose1d(1, 1, kernel, stride, word, dilation)
        assert up(mx.zeros((1, size, 1))).shape == (1, size * stride, 1)


def test_causal_outputs_see_no_later_input():
    x = mx.arange(12.0).reshape(1, 12, 1)
    for layer, last in (
        (Conv1d(1, 1, 3, 2, "causal", dilation=2), lambda t: 2 * t),
        (convjit.nn.ConvTranspose1d(1, 1, 5, 2, "causal"), lambda t: t // 2),
    ):
        y = layer(x)
        for t in range(y.shape[1]):
            later = mx.where(mx.arange(12).reshape(1, 12, 1) > last(t), mx.nan, x)
            assert not mx.isnan(layer(later)[0, : t + 1]).any()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def both(torch, name, *arguments, **options):
    """PyTorch's layer, and ours that reads its weights and layout."""
    theirs = getattr(torch.nn, name)(*arguments, **options)
    ours = getattr(convjit.nn, name)(*arguments, **options, permute=True)
    assert {n: tuple(p.shape) for n, p in theirs.named_parameters()} == {
        n: p.shape for n, p in ours.parameters().items()
    }
    ours.load_weights([(n, mx.array(p.detach().numpy())) for n, p in theirs.named_parameters()])
    return theirs, ours


def agree(torch, theirs, ours, shape):
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    y = np.array(ours(mx.array(x)))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", MODES)
def test_modes_of_torch(torch, mode):
    agree(torch, *both(torch, "Conv1d", 4, 6, 3, padding=4, groups=2, padding_mode=mode), (2, 4, 5))
    agree(torch, *both(torch, "Conv1d", 2, 3, 4, padding="same", dilation=3, padding_mode=mode), (2, 2, 10))
    agree(torch, *both(torch, "Conv2d", 3, 4, (3, 2), (2, 1), (2, 3), padding_mode=mode), (1, 3, 4, 5))
    agree(torch, *both(torch, "Conv3d", 2, 4, 2, padding=(1, 0, 2), groups=2, padding_mode=mode), (1, 2, 3, 4, 3))


def test_transposed_layers_of_torch(torch):
    agree(torch, *both(torch, "ConvTranspose1d", 6, 4, 4, 3, 3, output_padding=2, groups=2), (2, 6, 5))
    agree(torch, *both(torch, "ConvTranspose2d", 4, 4, 2, 2, 2, groups=4, bias=False), (1, 4, 4, 5))
    agree(torch, *both(torch, "ConvTranspose3d", 4, 6, (2, 3, 1), 2, (1, 2, 0), groups=2, dilation=2), (1, 4, 3, 3, 2))


@pytest.mark.parametrize("mode, size", [("reflect", 3), ("circular", 2)])
def test_limits_are_torchs(torch, mode, size):
    """Padding of 3 around an axis of `size` is refused by both."""
    theirs, ours = both(torch, "Conv1d", 1, 1, 1, padding=3, padding_mode=mode)
    with pytest.raises(RuntimeError):
        theirs(torch.zeros(1, 1, size))
    with pytest.raises(ValueError, match=f"{mode} padding of"):
        ours(mx.zeros((1, 1, size)))
    agree(torch, theirs, ours, (1, 1, size + 1))


@pytest.mark.parametrize("make, shape", [(Conv2d, (1, 5, 6, 3)), (Conv3d, (1, 3, 4, 3, 3))])
@pytest.mark.parametrize("mode", MODES)
def test_nan_and_infinity_reach_what_they_should(make, shape, mode):
    layer = make(3, 2, 3, padding=1, padding_mode=mode, bias=False)
    x = np.zeros(shape, np.float32)
    x[(0,) * len(shape)] = np.inf
    fast = convjit.compile(layer, fallback="error", accuracy="precise")
    y, expected = np.array(fast(mx.array(x))), np.array(layer(mx.array(x)))
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    assert not np.isfinite(expected).all() and np.isfinite(expected).any()


def random_layers(torch, seed):
    """A convolution or its transposed twin, of random arguments that PyTorch takes, and the shape of an input."""
    random = np.random.default_rng(seed)
    rank, groups = int(random.integers(1, 4)), int(random.integers(1, 4))

    def each(low, high):
        return tuple(int(n) for n in random.integers(low, high, rank))

    channels = [groups * int(n) for n in random.integers(1, 4, 2)]
    kernel, stride, dilation, padding = each(1, 4), each(1, 4), each(1, 3), each(0, 4)
    options = {"groups": groups, "bias": bool(random.integers(2))}
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if random.integers(2):
        size = [max(1, 2 * p - r + 1) + int(n) for r, p, n in zip(reach, padding, each(0, 4), strict=True)]
        options["output_padding"] = tuple(
            int(random.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True)
        )
        name = f"ConvTranspose{rank}d"
    else:
        size = [max(p + 1, r + 1 - 2 * p) + int(n) for r, p, n in zip(reach, padding, each(0, 4), strict=True)]
        options["padding_mode"] = MODES[random.integers(len(MODES))]
        name = f"Conv{rank}d"
    layers = both(torch, name, *channels, kernel, stride, padding, dilation=dilation, **options)
    return *layers, (int(random.integers(1, 3)), channels[0], *size)


@pytest.mark.parametrize("seed", range(20))
def test_random_layers_of_torch(torch, seed):
    for part in range(5):
        agree(torch, *random_layers(torch, 5 * seed + part))
