"""`convjit.nn.max.Conv2d` against what MAX 26.7 computed (record_max_cases.py), and its own documentation."""

import copy
import inspect
import json
import pickle
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from definitions import define, weight_and_input

import convjit
from convjit.nn.max import Conv2d

RECORDS = np.load(Path(__file__).parent / "max_cases.npz")
CASES = sorted({key.rpartition("/")[0] for key in RECORDS})


def test_all_kinds_are_recorded():
    used = {argument for name in CASES for argument in json.loads(str(RECORDS[f"{name}/arguments"]))}
    assert used >= {"kernel_size", "stride", "padding", "dilation", "num_groups", "has_bias"}


@pytest.mark.parametrize("permute", [False, True], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("name", CASES)
def test_recorded_results(name, permute):
    """Channels first are the same numbers: a weight (H, W, C / groups, O) as (O, C / groups, H, W)."""
    arguments = json.loads(str(RECORDS[f"{name}/arguments"]))
    x, weight, expected = (RECORDS[f"{name}/{key}"] for key in ("x", "weight", "y"))
    if permute:
        x, weight, expected = x.transpose(0, 3, 1, 2), weight.transpose(3, 2, 0, 1), expected.transpose(0, 3, 1, 2)
    layer = Conv2d(**arguments, permute=permute)
    assert layer.weight.shape == weight.shape
    layer.weight = mx.array(weight)
    if layer.has_bias:
        assert layer.bias.shape == RECORDS[f"{name}/bias"].shape
        layer.bias = mx.array(RECORDS[f"{name}/bias"])
    for call in (layer, convjit.compile(layer, fallback="error")):
        y = np.array(call(mx.array(x)))
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_signature():
    def of_max(
        kernel_size,
        in_channels,
        out_channels,
        dtype=None,
        stride=1,
        padding=0,
        dilation=1,
        num_groups=1,
        device=None,
        has_bias=False,
        permute=False,
        name=None,
    ): ...

    ours, theirs = (inspect.signature(f).parameters.values() for f in (Conv2d, of_max))
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


def test_attributes():
    layer = Conv2d(3, 4, 6, dtype=mx.bfloat16, padding=(1, 2), num_groups=2, has_bias=True, name="stem")
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1, 2, 2), (1, 1))
    assert (layer.in_channels, layer.out_channels, layer.num_groups, layer.name) == (4, 6, 2, "stem")
    assert layer.weight.dtype == layer.bias.dtype == mx.bfloat16 and layer.weight.shape == (3, 3, 2, 6)
    assert layer.dtype == mx.bfloat16 and Conv2d(3, 4, 6).dtype == mx.float32
    assert Conv2d(3, 4, 6).bias == 0 and list(Conv2d(3, 4, 6).parameters()) == ["weight"]


def test_copies():
    layer = Conv2d(3, 4, 6, dtype=mx.float16, padding=(0, 1, 2, 3), has_bias=True)
    x = mx.ones((1, 6, 6, 4), mx.float16)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer) and mx.array_equal(twin(x), layer(x))
    twin.set_dtype(mx.float32)
    assert twin.dtype == mx.float32


def test_initial_values_are_standard_normal():
    mx.random.seed(1)
    layer = Conv2d(9, 16, 32, has_bias=True)
    w = np.array(layer.weight, np.float64)
    assert abs(w.mean()) < 0.02 and abs(w.std() - 1) < 0.02 and 0.5 < mx.std(layer.bias).item() < 1.5


def test_definition_with_everything_at_once():
    layer = Conv2d((3, 2), 4, 6, stride=(2, 1), padding=(0, 1, 2, 3), dilation=(1, 2), num_groups=2, permute=True)
    w, x = weight_and_input(layer, (2, 4, 7, 6), seed=9)
    definition = define((0, 1), (2, 3), stride=(2, 1), dilation=(1, 2), groups=2)
    expected = definition(x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(np.array(layer(mx.array(x))), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", -1, (1, 2, 3), (0, 0, 0, -1)])
def test_wrong_padding(padding):
    with pytest.raises(ValueError, match="padding must be"):
        Conv2d(3, 4, 6, padding=padding)


def test_wrong_channels():
    with pytest.raises(ValueError, match=r"input channels \(4\) must be divisible by the number of groups \(3\)"):
        Conv2d(3, 4, 6, num_groups=3)
    with pytest.raises(
        ValueError, match=r"Conv2d\(.*\): input has 8 channels but .* \(input \(1, 4, 8, 8\), read as NHWC;"
    ):
        Conv2d(3, 4, 6)(mx.zeros((1, 4, 8, 8)))
