"""Any elementwise expression behind a convolution becomes part of its kernel; this shows how far that goes.

python examples/fused_epilogue.py
"""

import mlx.core as mx
import mlx.nn as nn

import convjit

x, other = mx.random.normal((1, 16, 16, 8)), mx.random.normal((1, 16, 16, 8))
w, scale = mx.random.normal((8, 3, 3, 8)) * 0.1, mx.random.normal((8,))


def conv(x):
    return mx.conv2d(x, w, padding=1)


def own_activation(x):
    """Nobody's list of activations has this one."""
    y = conv(x) * scale
    return mx.where(y > 0, mx.log1p(mx.abs(y)), mx.tanh(y) - 0.1 * mx.cos(y))


def two_inputs_many_uses(x, other):
    """Other arrays join, and a value may be used more than once: here y three times."""
    y = conv(x) + other
    return y * mx.sigmoid(y) + mx.minimum(y, other)


def needed_twice(x):
    """A value that is needed outside becomes a second result of the same kernel."""
    y = conv(x)
    return nn.relu(y), y


def ends_at_a_reduction(x):
    """A mean mixes pixels, so the kernel ends before it; what follows is MLX's again."""
    y = nn.gelu(conv(x))
    return y - y.mean(axis=(1, 2), keepdims=True)


for function, arrays in (
    (own_activation, (x,)),
    (two_inputs_many_uses, (x, other)),
    (needed_twice, (x,)),
    (ends_at_a_reduction, (x,)),
):
    fast = convjit.compile(function)
    result, expected = fast(*arrays), function(*arrays)
    pairs = zip(result, expected, strict=True) if isinstance(result, tuple) else [(result, expected)]
    (row,) = convjit.inspect.explain(fast).rows
    print(f"{function.__name__}: {function.__doc__}")
    print(f"  fused: {row.fused or 'nothing'}")
    print(f"  note:  {row.note or 'none'}")
    print(f"  largest difference from plain MLX: {max(mx.abs(a - b).max().item() for a, b in pairs):.1e}\n")
