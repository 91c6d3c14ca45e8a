"""Bad convolutions inside a compiled function: the layer is named, and the process lives."""

import mlx.core as mx
import mlx.nn as nn
import pytest

import convjit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(4, 8, 3)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_layer_is_named():
    with pytest.raises(
        ValueError, match=r"^conv2d 'layers\.1': input has 8 channels but weight \(8, 3, 3, 4\) expects 4$"
    ):
        convjit.compile(Net())(mx.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("x", "w", "groups", "message"),
    [
        ((1, 8, 8, 0), (4, 3, 3, 0), 1, "must have at least one channel"),
        ((1, 8, 8, 3), (0, 3, 3, 3), 1, "has no output channels"),
        ((1, 8, 8, 3), (4, 3, 3, 3), 0, "groups must be at least 1, got 0"),
        ((1, 0, 8, 3), (4, 3, 3, 3), 1, "is larger than the padded input"),
        ((1, 2, 2, 3), (4, 3, 3, 3), 1, "is larger than the padded input"),
    ],
)
def test_what_would_end_the_process(x, w, groups, message):
    fast = convjit.compile(lambda x, w: mx.conv2d(x, w, groups=groups))
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            fast(mx.zeros(x), mx.zeros(w))
