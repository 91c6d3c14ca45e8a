"""What lies between kernels and only moves elements: exact, in any chain, and no end of a stretch."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from checks import assert_close, fast_of, image
from moves import random_moves

import convjit


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    mx.eval(conv.parameters())
    return conv


def forward(fast) -> str:
    return convjit.inspect.ir(fast).partition("@forward")[2]


@pytest.mark.parametrize("seed", range(30))
def test_random_chains(seed: int):
    """The chain's elements are compared bit by bit, what kernels make of them closely."""
    rng, dtype = np.random.default_rng(seed), [mx.float32, mx.float16, mx.bfloat16][seed % 3]
    conv, moved = conv3x3(3, 6), random_moves(rng, (2, 6, 4, 6))
    conv.set_dtype(dtype)
    x = image(2, 6, 4, 3).astype(dtype)

    def plain(x: mx.array) -> tuple[mx.array, mx.array]:
        y = nn.relu(conv(x))
        z = moved(y)
        return y, z if seed % 2 else mx.tanh(z) + z * 0.5

    fast = fast_of(plain)
    for _ in range(2):
        y, z = fast(x)
        want = moved(y) if seed % 2 else mx.tanh(moved(y).astype(mx.float32)) + moved(y) * 0.5
        assert_close((y, z), (y, want.astype(dtype)), 0 if seed % 2 else 1e-2 if dtype != mx.float32 else 1e-6)
    assert_close(fast(x)[0], plain(x)[0], 1e-5 if dtype == mx.float32 else 2e-2)


def test_arrays_are_padded_with_the_first_element():
    """Of whatever they are padded with: MLX reads no other."""
    first, second = conv3x3(2, 3), conv3x3(3, 2)
    widths = ((0, 0), (1, 1), (1, 1), (0, 0))
    for fill in (mx.array([7.0, 8.0, 9.0]), mx.full((1, 1, 1, 1, 1), 5.0)):
        fast = fast_of(plain := lambda x, c: second(mx.pad(first(x), widths, constant_values=c)))
        assert_close(fast(image(1, 4, 4, 2), fill), plain(image(1, 4, 4, 2), fill))
        assert forward(fast).count("conv.stretch(") == 1


def test_many_assigned_slices_are_few_copies():
    first, second, x = conv3x3(2, 3), conv3x3(3, 2), image(1, 4, 5, 2)

    def plain(x: mx.array) -> mx.array:
        y, z = first(x), mx.zeros((1, 400, 5, 3))
        for row in range(400):
            z[:, row : row + 1] = y[:, row % 4 : row % 4 + 1]
        return second(z)

    fast = fast_of(plain)
    assert_close(fast(x), plain(x))
    assert forward(fast).count("conv.rearrange(") < 10


def test_nothing_in_another_order():
    """An array without elements, added to one with fewer axes."""

    def plain(x: mx.array, w: mx.array) -> tuple[mx.array, mx.array]:
        y = mx.conv2d(x, w).transpose(0, 3, 1, 2)
        return y[:, :0] + mx.zeros((0, 1, 1)), y

    x, w = image(1, 4, 4, 2), image(3, 1, 1, 2)
    assert_close(fast_of(plain)(x, w), plain(x, w))


class Reflected(nn.Module):
    """EnCodec's layers, with padding by slices that run backwards."""

    def __init__(self):
        super().__init__()
        self.start, self.down, self.last = nn.Conv1d(2, 8, 7), nn.Conv1d(8, 8, 4, stride=2), nn.Conv1d(8, 4, 3)

    def __call__(self, x: mx.array) -> mx.array:
        for conv, low, high in ((self.start, 6, 0), (self.down, 2, 3), (self.last, 2, 0)):
            x = mx.concatenate([x[:, 1 : low + 1][:, ::-1], nn.elu(x), x[:, -high - 1 : -1][:, ::-1]], axis=1)
            x = conv(x)
        return x


class Attention(nn.Module):
    """As vision transformers write it: queries, keys and values by one product."""

    def __init__(self):
        super().__init__()
        self.embed, self.all, self.out = nn.Conv2d(3, 24, 2, 2), nn.Linear(24, 72), nn.Linear(24, 24)
        self.norm = nn.LayerNorm(24)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.embed(x).flatten(1, 2)
        n, pixels, _ = y.shape
        q, k, v = self.all(self.norm(y)).reshape(n, pixels, 3, 3, 8).transpose(2, 0, 3, 1, 4)
        weights = mx.softmax(q @ k.swapaxes(-1, -2) * 8**-0.5, axis=-1)
        return y + self.out((weights @ v).transpose(0, 2, 1, 3).reshape(n, pixels, 24))


class Dense(nn.Module):
    """DenseNet's, between YOLO's halves."""

    def __init__(self):
        super().__init__()
        self.stem, self.convs = conv3x3(3, 8), [conv3x3(c, 4) for c in (4, 8, 12)]
        self.head = nn.Conv2d(20, 6, 1)

    def __call__(self, x: mx.array) -> mx.array:
        kept, y = mx.split(nn.silu(self.stem(x)), 2, axis=-1)
        for conv in self.convs:
            y = mx.concatenate([y, nn.leaky_relu(conv(y))], axis=-1)
        return nn.Upsample(2)(self.head(mx.concatenate([y, kept], axis=-1)))[:, 1:] * 2


class Gated(nn.Module):
    """WaveNet's units, causal."""

    def __init__(self):
        super().__init__()
        self.start, self.units = nn.Conv1d(2, 8, 1), [nn.Conv1d(8, 16, 2, dilation=2**n) for n in range(3)]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.start(x)
        for n, unit in enumerate(self.units):
            a, b = mx.split(unit(mx.pad(x, ((0, 0), (2**n, 0), (0, 0)))), 2, axis=-1)
            x = x + mx.tanh(a) * mx.sigmoid(b)
        return x


class Windows(nn.Module):
    """Swin's: attention within shifted windows."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 24)

    def __call__(self, x: mx.array) -> mx.array:
        y = mx.roll(self.stem(x), (-2, -2), (1, 2))
        n, h, w, c = y.shape
        parts = y.reshape(n, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = mx.split(self.qkv(parts), 3, axis=-1)
        parts = mx.softmax(q @ k.swapaxes(1, 2), axis=-1) @ v
        z = parts.reshape(n, h // 4, w // 4, 4, 4, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return nn.gelu(y + mx.roll(z, (2, 2), (1, 2)))


class Recurrent(nn.Module):
    """A ConvGRU on the frames of a video."""

    def __init__(self):
        super().__init__()
        self.gates, self.new = conv3x3(7, 8), conv3x3(7, 4)

    def __call__(self, x: mx.array) -> mx.array:
        state = mx.zeros((*x[:, 0].shape[:-1], 4), x.dtype)
        for frame in range(x.shape[1]):
            at = x[:, frame]
            reset, update = mx.split(mx.sigmoid(self.gates(mx.concatenate([at, state], axis=-1))), 2, axis=-1)
            state = update * state + (1 - update) * mx.tanh(self.new(mx.concatenate([at, reset * state], axis=-1)))
        return state


class Framed(nn.Module):
    """A UNet's decoder: what it upsamples is padded to the size of what it joins. The border has a head of its own."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = conv3x3(3, 8), nn.Conv2d(8, 8, 3, stride=2)
        self.inner, self.border, self.last = conv3x3(16, 4), conv3x3(16, 4), nn.Conv2d(4, 3, 1)
        self.up = nn.Upsample(2, mode="linear")

    def __call__(self, x: mx.array) -> mx.array:
        kept = nn.relu(self.stem(x))
        y = self.up(nn.relu(self.down(kept))).astype(x.dtype)
        both = mx.concatenate([kept, mx.pad(y, ((0, 0), (0, 1), (1, 1), (0, 0)), constant_values=-0.5)], axis=-1)
        z = self.border(both)
        z[:, 1:-1, 2:-1] = self.inner(both)[:, 1:-1, 2:-1]
        return self.last(nn.relu(z))


NETWORKS = {
    "attention": (Attention, (2, 8, 8, 3)),
    "dense": (Dense, (2, 6, 6, 3)),
    "gated": (Gated, (2, 20, 2)),
    "windows": (Windows, (1, 8, 8, 3)),
    "recurrent": (Recurrent, (1, 3, 6, 6, 3)),
    "framed": (Framed, (2, 7, 6, 3)),
    "reflected": (Reflected, (2, 21, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_one_stretch(name: str):
    make, shape = NETWORKS[name]
    net = make()
    mx.eval(net.parameters())
    fast = fast_of(net)
    for seed in range(4):  # from the third call on by a call in C
        x = image(*shape, seed=seed)
        assert_close(fast(x), net(x), 2e-5)
    assert forward(fast).count("conv.stretch(") == 1 and forward(fast).count("conv.rearrange(") > 0


@pytest.mark.parametrize(("name", "dtype"), list(zip(NETWORKS, [mx.float16, mx.bfloat16] * 4, strict=False)), ids=str)
def test_networks_in_half_types(name: str, dtype: mx.Dtype):
    make, shape = NETWORKS[name]
    net, x = make(), image(*shape)
    exact = net(x)
    net.set_dtype(dtype)
    got = fast_of(net)(x.astype(dtype))
    assert got.dtype == dtype
    assert_close(got.astype(mx.float32), exact, 0.1 if dtype == mx.bfloat16 else 0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(name: str):
    make, shape = NETWORKS[name]
    net, x = make(), image(*shape)
    mx.eval(net.parameters())

    def loss(net: nn.Module, x: mx.array) -> mx.array:
        return net(x).square().mean()

    gradients = nn.value_and_grad(net, loss)
    fast = fast_of(lambda x: gradients(net, x))
    assert_close(fast(x), gradients(net, x), 1e-4)


def test_what_is_read_again_later():
    """A view and a packed weight that outlive their stretch."""
    layer, x = nn.Linear(8, 8), image(2, 12, 8)
    mx.eval(layer.parameters())

    def plain(x: mx.array) -> mx.array:
        y = layer(x)
        middle = mx.sort(y @ y.swapaxes(1, 2), axis=-1)
        return nn.relu(y.reshape(24, 8) * 2).reshape(2, 8, 12) @ middle + (middle @ y).reshape(2, 8, 12)

    fast = fast_of(plain)
    assert_close(fast(x), plain(x), 2e-5)


def test_one_array_in_many_places():
    """The same slice for two kernels, twice in one, beside what it is a slice of."""
    conv, twice = conv3x3(3, 8), nn.Conv2d(4, 4, 1)
    mx.eval(twice.parameters())

    def plain(x: mx.array) -> list[mx.array]:
        y = nn.relu(conv(x))
        half = y[..., 4:]
        return [half * half + twice(half), mx.concatenate([half, y, half], axis=-1), half, y]

    fast = fast_of(plain)
    assert_close(fast(image()), plain(image()))
    assert forward(fast).count("conv.rearrange(") == 2 and "mlx.primitive" not in forward(fast)
