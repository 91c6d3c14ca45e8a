"""Every layer, plain and compiled, against its definition in float64; and against MLX's layers what both have."""

import doctest

import mlx
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from definitions import define, weight_and_input
from mlx.utils import tree_flatten

import convjit
from convjit.nn import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

# name -> layer, its definition, shape of a channels-last input
CASES = {
    "1d, before and after": (lambda: Conv1d(3, 5, 4, padding=(3, 0)), define((3, 0)), (2, 9, 3)),
    "1d, causal": (lambda: Conv1d(3, 4, 3, 2, "causal", dilation=2), define((4, 0), stride=2, dilation=2), (1, 8, 3)),
    "1d, same": (lambda: Conv1d(2, 3, 4, padding="same"), define((1, 2)), (1, 7, 2)),
    "1d, depthwise": (lambda: Conv1d(5, 10, 3, groups=5, padding="valid"), define((0, 0), groups=5), (1, 9, 5)),
    "2d, four sides": (lambda: Conv2d(3, 5, 3, padding=(0, 1, 2, 3)), define((0, 1), (2, 3)), (1, 5, 6, 3)),
    "2d, pairs": (lambda: Conv2d(3, 4, (2, 3), padding=((2, 0), (0, 1))), define((2, 0), (0, 1)), (2, 5, 4, 3)),
    "2d, same, strided": (lambda: Conv2d(3, 4, 4, 3, "same"), define((1, 1), (0, 1), stride=3), (1, 8, 9, 3)),
    "2d, groups": (
        lambda: Conv2d(4, 6, 3, (1, 2), ("causal", 1), (2, 1), groups=2, bias=False),
        define((4, 0), (1, 1), stride=(1, 2), dilation=(2, 1), groups=2),
        (1, 5, 7, 4),
    ),
    "3d, groups": (
        lambda: Conv3d(4, 6, (2, 3, 1), groups=2, padding=("causal", "same", 0)),
        define((1, 0), (1, 1), (0, 0), groups=2),
        (1, 3, 4, 5, 4),
    ),
    "3d, depthwise": (
        lambda: Conv3d(3, 3, 3, (2, 1, 1), (1, 0, 0, 1, 2, 0), groups=3),
        define((1, 0), (0, 1), (2, 0), stride=(2, 1, 1), groups=3),
        (2, 4, 4, 3, 3),
    ),
    "2d, reflect": (
        lambda: Conv2d(3, 4, 3, padding=(2, 1, 0, 3), padding_mode="reflect"),
        define((2, 1), (0, 3), mode="reflect"),
        (1, 4, 5, 3),
    ),
    "2d, circular": (
        lambda: Conv2d(3, 4, 3, 2, "same", padding_mode="circular"),
        define((0, 1), (1, 1), stride=2, mode="circular"),
        (1, 4, 5, 3),
    ),
    "3d, replicate": (
        lambda: Conv3d(2, 3, 2, padding=(3, 0, 1), padding_mode="replicate"),
        define((3, 3), (0, 0), (1, 1), mode="replicate"),
        (1, 2, 3, 2, 2),
    ),
    "transposed 1d": (
        lambda: ConvTranspose1d(3, 4, 4, 3, (2, 1), 2, 1),
        define((2, 0), stride=3, dilation=2, transposed=True),
        (2, 5, 3),
    ),
    "transposed 1d, causal": (
        lambda: ConvTranspose1d(4, 6, 5, 2, "causal", groups=2),
        define((0, 3), stride=2, groups=2, transposed=True),
        (1, 6, 4),
    ),
    "transposed 1d, more padding than kernel": (
        lambda: ConvTranspose1d(3, 4, 2, 2, 3),
        define((3, 3), stride=2, transposed=True),
        (1, 7, 3),
    ),
    "transposed 1d, kernel below stride": (
        lambda: ConvTranspose1d(3, 4, 2, 5, "same"),
        define((0, -3), stride=5, transposed=True),
        (1, 3, 3),
    ),
    "transposed 2d, groups": (
        lambda: ConvTranspose2d(4, 6, 3, 2, (0, 1, 2, 0), output_padding=(0, 1), groups=2, bias=False),
        define((0, 1), (2, -1), stride=2, groups=2, transposed=True),
        (1, 4, 3, 4),
    ),
    "transposed 2d, same": (
        lambda: ConvTranspose2d(3, 5, 4, 2, "same"),
        define((1, 1), (1, 1), stride=2, transposed=True),
        (1, 3, 4, 3),
    ),
    "transposed 2d, cut on one side": (
        lambda: ConvTranspose2d(3, 5, (1, 3), (3, 2), ((2, 0), 1)),
        define((2, 0), (1, 1), stride=(3, 2), transposed=True),
        (1, 3, 4, 3),
    ),
    "transposed 3d, groups": (
        lambda: ConvTranspose3d(4, 6, (2, 3, 2), (2, 1, 2), 1, groups=2),
        define((1, 1), (1, 1), (1, 1), stride=(2, 1, 2), groups=2, transposed=True),
        (1, 3, 4, 2, 4),
    ),
}


def close(actual: mx.array, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(np.array(actual), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed, name", list(enumerate(CASES)))
def test_definition(name, seed):
    make, definition, shape = CASES[name]
    layer = make()
    w, x = weight_and_input(layer, shape, seed)
    expected = definition(x, w) + (np.array(layer.bias) if "bias" in layer else 0)
    close(layer(mx.array(x)), expected)
    fast = convjit.compile(layer, fallback="error")
    close(fast(mx.array(x)), expected)
    assert len(convjit.inspect.explain(fast).rows) == 1, "3D groups are one convolution, too"


CHANNELS_FIRST = {
    "1d": (lambda: Conv1d(6, 4, 3, groups=2, padding=(2, 0), permute=True), define((2, 0), groups=2), (1, 6, 7)),
    "2d": (lambda: Conv2d(3, 5, 3, 2, "same", permute=True), define((1, 1), (0, 1), stride=2), (2, 3, 5, 6)),
    "3d": (lambda: Conv3d(2, 3, 2, bias=False, permute=True), define((0, 0), (0, 0), (0, 0)), (1, 2, 3, 2, 4)),
}


@pytest.mark.parametrize("seed, name", list(enumerate(CHANNELS_FIRST)))
def test_channels_first(name, seed):
    make, definition, shape = CHANNELS_FIRST[name]
    layer = make()
    w, x = weight_and_input(layer, shape, seed)
    expected = definition(np.moveaxis(x, 1, -1), np.moveaxis(w, 1, -1))
    expected = np.moveaxis(expected + (np.array(layer.bias) if "bias" in layer else 0), -1, 1)
    close(layer(mx.array(x)), expected)
    close(convjit.compile(layer, fallback="error")(mx.array(x)), expected)


def test_weights_of_pytorch_are_transposed_once():
    """Only the input and the output are transposed in each call."""
    layer = ConvTranspose2d(4, 6, 3, 2, "same", groups=2, permute=True)
    fast = convjit.compile(layer, fallback="error")
    fast(mx.zeros((1, 4, 3, 4)))
    prepare, forward = convjit.inspect.ir(fast).split("@forward")
    assert "Unflatten" in prepare and "Transpose" in prepare
    assert "Unflatten" not in forward and forward.count('"Transpose"') == 1 and forward.count("conv.rearrange(") == 1


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision(dtype):
    layer = Conv3d(4, 6, 2, padding="causal", groups=2, padding_mode="replicate")
    layer.set_dtype(dtype)
    x = mx.random.normal((1, 3, 4, 4, 4), dtype, key=mx.random.key(5))
    w, bias = (np.array(layer[name].astype(mx.float32)) for name in ("weight", "bias"))
    causal = define((1, 0), (1, 0), (1, 0), groups=2, mode="replicate")
    expected = causal(np.array(x.astype(mx.float32)), w) + bias
    for y in (layer(x), convjit.compile(layer, fallback="error")(x)):
        assert y.dtype == dtype
        np.testing.assert_allclose(np.array(y.astype(mx.float32)), expected, atol=2e-2 * np.abs(expected).max())


# What MLX's layers have: the arguments, in their order, of both, and the shape of an input.
COMMON = {
    "Conv1d": ((4, 6, 3, 2, 1, 2, 2, True), (1, 9, 4)),
    "Conv2d": ((4, 6, (3, 2), (2, 1), (1, 0), 2, 2, True), (1, 7, 6, 4)),
    "Conv3d": ((2, 3, 2, (1, 2, 1), 1, 1, False), (1, 3, 4, 3, 2)),
    "ConvTranspose1d": ((3, 4, 3, 2, 1, 2, 1, True), (1, 5, 3)),
    "ConvTranspose2d": ((3, 4, 3, (2, 1), (1, 0), 1, (1, 0), True), (1, 3, 4, 3)),
    "ConvTranspose3d": ((2, 3, 2, 2, 1, (1, 2, 1), 0, False), (1, 3, 3, 2, 2)),
}


@pytest.fixture(params=COMMON)
def common(request):
    """MLX's layer, ours of the same arguments and seed, and an input."""
    arguments, shape = COMMON[request.param]
    layers = []
    for namespace in (nn, convjit.nn):
        mx.random.seed(3)
        layers.append(getattr(namespace, request.param)(*arguments))
    return *layers, mx.random.normal(shape, key=mx.random.key(4))


def test_same_parameters_as_mlx(common):
    theirs, ours, _ = common
    parameters, expected = dict(tree_flatten(ours.parameters())), dict(tree_flatten(theirs.parameters()))
    assert parameters.keys() == expected.keys()
    assert all(mx.array_equal(parameters[name], expected[name]) for name in expected)
    assert repr(ours) == repr(theirs)


def test_same_results_as_mlx(common, tmp_path):
    theirs, ours, x = common
    theirs.update({name: mx.random.normal(w.shape) for name, w in theirs.parameters().items()})
    theirs.save_weights(str(tmp_path / "weights.safetensors"))
    ours.load_weights(str(tmp_path / "weights.safetensors"))
    assert mx.array_equal(ours(x), theirs(x))


def test_from_mlx(common):
    theirs, _, x = common
    theirs.freeze(keys="weight")
    before = list(mx.random.state)
    ours = convjit.nn.from_mlx(theirs)
    assert all(mx.array_equal(a, b) for a, b in zip(before, mx.random.state, strict=True))
    assert type(ours).__name__ == type(theirs).__name__ and repr(ours) == repr(theirs)
    assert ours.weight is theirs.weight and mx.array_equal(ours(x), theirs(x))
    assert ours.trainable_parameters().keys() == theirs.trainable_parameters().keys()
    ours.unfreeze()
    ours.weight, ours.stride = ours.weight * 2, 1
    assert "weight" not in theirs.trainable_parameters() and theirs.stride != 1 and ours.weight is not theirs.weight


def test_from_mlx_takes_layers_that_it_knows():
    class Own(nn.Conv2d):
        pass

    with pytest.raises(TypeError, match=r"from_mlx takes mlx.nn.Conv1d, .*; got .*Own"):
        convjit.nn.from_mlx(Own(1, 1, 1))


def test_from_mlx_is_right_where_mlx_is_not():
    """Rule 17: MLX cuts inputs instead of outputs; its own numbers differ from the definition."""
    theirs = nn.ConvTranspose1d(3, 4, 2, stride=2, padding=2, bias=False)
    w, x = weight_and_input(theirs, (1, 7, 3), seed=6)
    expected = define((2, 2), stride=2, transposed=True)(x, w)
    assert theirs(mx.array(x)).shape != expected.shape
    close(convjit.nn.from_mlx(theirs)(mx.array(x)), expected)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_attributes_are_read_at_each_call(compiled):
    layer = Conv2d(3, 4, 3)
    call = convjit.compile(layer, fallback="error") if compiled else layer
    w, x = weight_and_input(layer, (1, 8, 8, 3), seed=8)
    bias = np.array(layer.bias)
    close(call(mx.array(x)), define((0, 0), (0, 0))(x, w) + bias)
    layer.stride, layer.padding = 2, "same"
    close(call(mx.array(x)), define((0, 1), (0, 1), stride=2)(x, w) + bias)
    layer.padding, layer.padding_mode = ((2, 1), 0), "replicate"
    close(call(mx.array(x)), define((2, 1), (0, 0), stride=2, mode="replicate")(x, w) + bias)


@pytest.mark.parametrize("name", convjit.nn.__all__)
def test_examples_of_docstrings(name):
    names = {"convjit": convjit, "mlx": mlx, "mx": mx}
    public = convjit.nn.max.Conv2d if name == "max" else getattr(convjit.nn, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(public, globs=names)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0


def test_repr_tells_what_mlx_lacks():
    layer = Conv3d(4, 6, 3, padding=("causal", 1, (0, 2)), groups=2, padding_mode="reflect", permute=True)
    assert repr(layer) == (
        "Conv3d(4, 6, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=('causal', 1, (0, 2)), dilation=1, "
        "padding_mode='reflect', groups=2, bias=True, permute=True)"
    )
    assert "output_padding=0, groups=2, bias=False" in repr(ConvTranspose1d(4, 2, 3, bias=False, groups=2))


WRONG = {
    "stride": ({"stride": 0}, "stride must be at least 1, got (0, 0)"),
    "three strides": ({"stride": (1, 2, 3)}, "stride must be an int or 2 ints, got (1, 2, 3)"),
    "dilation": ({"dilation": 1.5}, "dilation must be an int or 2 ints, got 1.5"),
    "kernel": ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
    "groups": ({"groups": 2}, "the number of input channels (3) must be divisible by the number of groups (2)"),
    "output channels": ({"groups": 3}, "the number of output channels (4) must be divisible by the number of groups"),
    "no groups": ({"groups": 0}, "the number of groups (0)"),
    "mode": ({"padding_mode": "wrap"}, "padding_mode must be one of zeros, reflect, replicate, circular, got 'wrap'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    arguments, message = WRONG[name]
    with pytest.raises(ValueError) as raised:
        Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **arguments})
    assert message in str(raised.value)


WRONG_INPUTS = {
    "channels": (lambda: Conv2d(3, 4, 3), (1, 3, 8, 8), "input has 8 channels but weight (4, 3, 3, 3) expects 3"),
    "layout": (
        lambda: Conv2d(3, 4, 3, permute=True),
        (1, 8, 8, 3),
        "(input (1, 8, 8, 3), read as NCHW because of permute)",
    ),
    "rank": (lambda: Conv3d(3, 4, 3), (1, 8, 8, 3), "input must have 5 axes (input (1, 8, 8, 3), read as NDHWC;"),
    "extent": (lambda: Conv1d(3, 4, 9), (1, 8, 3), "kernel (9,) with dilation (1,) is larger than the padded input"),
    "reflect": (
        lambda: Conv1d(3, 4, 9, padding="causal", padding_mode="reflect"),
        (1, 8, 3),
        "reflect padding of (8, 0) takes more than the axis has, 8 elements: pad less, or use another padding_mode",
    ),
    "transposed": (lambda: ConvTranspose1d(3, 4, 3, padding=(4, 2)), (1, 4, 3), "padding (4, 2) leaves an output of"),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_wrong_inputs(name, compiled):
    make, shape, message = WRONG_INPUTS[name]
    layer = make()
    call = convjit.compile(nn.Sequential(layer), fallback="error") if compiled else layer
    with pytest.raises(ValueError) as raised:
        call(mx.zeros(shape))
    assert repr(layer) in str(raised.value) and message in str(raised.value)
