"""`accuracy=`: which algorithms may be chosen."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

import convjit
from convjit.geometry import Geometry, Window
from convjit.kernel import Kernel, identity_epilogue
from convjit.passes import pipeline_for
from convjit.schedule.metal import candidates, choose
from convjit.schedule.metal.chip import CHIPS

SAME = Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1))
LARGE = Kernel(
    Geometry.of_shapes((1, 64, 64, 512), (512, 3, 3, 512), SAME), "f32", (), identity_epilogue("f32"), ("f32",)
)
WINOGRAD = "metal/winograd"


@pytest.mark.parametrize("accuracy", ["precise", "fast"])
def test_winograd_is_not_even_measured_by_default(accuracy):
    kernel = replace(LARGE, accuracy=accuracy)
    for chip in CHIPS.values():
        assert WINOGRAD not in {s.template for s in candidates(kernel, chip)}


def test_precise_sums_are_shorter():
    kernel = replace(LARGE, geometry=replace(LARGE.geometry, in_channels=1024))
    chip = CHIPS["M1"]
    assert choose(kernel, chip).number("parts") == 1
    assert choose(replace(kernel, accuracy="precise"), chip).number("parts") == 2


def test_fastest_takes_winograd_where_it_should_be_faster():
    kernel = replace(LARGE, accuracy="fastest")
    assert choose(kernel, CHIPS["M1"]).template == WINOGRAD
    small = replace(kernel, geometry=replace(kernel.geometry, in_size=(4, 4), in_channels=16, out_channels=16))
    assert choose(small, CHIPS["M1 Ultra"]).template != WINOGRAD


def test_the_option_reaches_the_schedule():
    x = mx.random.normal((1, 24, 24, 64), key=mx.random.key(0))
    w = mx.random.normal((64, 3, 3, 64), key=mx.random.key(1)) / 24

    def block(x):
        return mx.maximum(mx.conv2d(x, w, padding=1), 0)

    templates = {}
    for accuracy in ("fast", "fastest"):
        fast = convjit.compile(block, backend="simulator", fallback="error", accuracy=accuracy)
        np.testing.assert_allclose(np.array(fast(x)), np.array(block(x)), rtol=1e-4, atol=1e-4)
        ((_, kernel, schedule),) = convjit.inspect.kernels(fast)
        assert kernel.accuracy == accuracy
        templates[accuracy] = schedule.template
    assert templates["fast"] == "metal/gemm.metal"
    assert "accuracy" in pipeline_for("metal", None, "fastest") and "accuracy" not in pipeline_for("metal")


def test_a_wrong_accuracy_says_which_there_are():
    with pytest.raises(ValueError, match="'precise', 'fast' or 'fastest', got 'exact'"):
        convjit.compile(lambda x: x, accuracy="exact")
