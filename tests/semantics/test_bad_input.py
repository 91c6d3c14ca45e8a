"""Bad arguments of convolutions: what plain MLX does with them, and that convjit says what is wrong instead.

The cases marked "dies" and "computes" are the list of deviations: plain MLX 0.32 ends the process, or returns numbers
that no definition of a convolution gives, where a checked call raises. Everything else that MLX computes passes.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np
import pytest

from convjit.geometry import GeometryError
from convjit.tracing.checked import checked_convolutions

CONVOLUTIONS = [f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)] + ["conv_general"]


def ones(*shape: int) -> mx.array:
    return mx.ones(shape)


def of(dtype: mx.Dtype, *shape: int) -> mx.array:
    return mx.ones(shape, dtype)


NAMES = {"mx": mx, "np": np, "ones": ones, "of": of}


def call(expression: str) -> mx.array:
    return eval(expression, NAMES)


@dataclass(frozen=True)
class Bad:
    call: str
    message: str
    plain: Literal["dies", "computes", "raises"] = "raises"


CASES = [
    # Channels and groups.
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 3))", "input has 4 channels but weight (6, 3, 3, 3) expects 3"),
    Bad(
        "mx.conv2d(ones(1, 4, 8, 8), ones(6, 3, 3, 4))",
        "input has 8 channels but weight (6, 3, 3, 4) expects 4: channels come last, and in (1, 4, 8, 8) they seem "
        "to come first; transpose it, or use a layer of convjit.nn with permute=True",
    ),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 2), groups=3)",
        "input has 4 channels but weight (6, 3, 3, 2) expects 6 (3 groups of 2)",
    ),
    Bad(
        "mx.conv3d(ones(1, 4, 4, 4, 4), ones(6, 2, 2, 2, 2), groups=2)",
        "MLX has no 3D convolutions of 2 groups: use convjit.nn.Conv3d or ConvTranspose3d",
    ),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), ones(5, 3, 3, 2), groups=2)",
        "weight (5, 3, 3, 2) has 5 output channels, not a multiple of 2 groups",
    ),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), groups=0)", "groups must be at least 1, got 0", "dies"),
    Bad("mx.conv1d(ones(1, 8, 4), ones(6, 3, 4), groups=0)", "groups must be at least 1, got 0", "dies"),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), groups=-1)", "groups must be at least 1, got -1"),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), groups=1.0)", "groups must be an int, got 1.0"),
    Bad(
        "mx.conv1d(ones(1, 8, 0), ones(6, 3, 0))",
        "input (1, 8, 0) and weight (6, 3, 0) must have at least one channel",
        "dies",
    ),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 0), ones(6, 3, 3, 0))",
        "input (1, 8, 8, 0) and weight (6, 3, 3, 0) must have at least one channel",
        "dies",
    ),
    Bad(
        "mx.conv_transpose2d(ones(1, 8, 8, 0), ones(6, 3, 3, 0))",
        "input (1, 8, 8, 0) and weight (6, 3, 3, 0) must have at least one channel",
        "dies",
    ),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(0, 3, 3, 4))", "weight (0, 3, 3, 4) has no output channels", "dies"),
    Bad("mx.conv3d(ones(1, 4, 4, 4, 2), ones(0, 3, 3, 3, 2))", "weight (0, 3, 3, 3, 2) has no output channels", "dies"),
    # Kernels.
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 0, 3, 4))", "weight (6, 0, 3, 4) has an empty kernel", "dies"),
    Bad(
        "mx.conv2d(ones(1, 4, 4, 4), ones(6, 5, 5, 4))",
        "kernel (5, 5) with dilation (1, 1) is larger than the padded input (4, 4)",
    ),
    Bad(
        "mx.conv2d(ones(1, 4, 4, 4), ones(6, 3, 3, 4), dilation=2, stride=2)",
        "kernel (3, 3) with dilation (2, 2) is larger than the padded input (4, 4)",
        "computes",
    ),
    Bad(
        "mx.conv1d(ones(1, 4, 4), ones(6, 5, 4), stride=5)",
        "kernel (5,) with dilation (1,) is larger than the padded input (4,)",
        "computes",
    ),
    Bad(
        "mx.conv1d(ones(1, 0, 4), ones(6, 1, 4))",
        "kernel (1,) with dilation (1,) is larger than the padded input (0,)",
    ),
    # Ranks.
    Bad(
        "mx.conv2d(ones(8, 8, 4), ones(6, 3, 3, 4))",
        "a 2D convolution takes an input and a weight of rank 4, got shapes (8, 8, 4) and (6, 3, 3, 4)",
    ),
    Bad(
        "mx.conv1d(ones(1, 8, 4), ones(6, 3, 3, 4))",
        "a 1D convolution takes an input and a weight of rank 3, got shapes (1, 8, 4) and (6, 3, 3, 4)",
    ),
    Bad(
        "mx.conv_transpose1d(ones(1, 8, 8, 4), ones(6, 3, 5, 4), padding=1)",
        "a 1D convolution takes an input and a weight of rank 3, got shapes (1, 8, 8, 4) and (6, 3, 5, 4)",
        "computes",
    ),
    Bad(
        "mx.conv_general(ones(1, 4), ones(6, 4))",
        "a convolution takes an input of rank 3, 4 or 5, got shape (1, 4)",
    ),
    # Dtypes.
    Bad(
        "mx.conv2d(of(mx.int32, 1, 8, 8, 4), ones(6, 3, 3, 4))",
        "input has dtype int32 but must be floating-point: use .astype(mx.float32)",
    ),
    Bad(
        "mx.conv1d(of(mx.bool_, 1, 8, 4), of(mx.bool_, 6, 3, 4))",
        "input has dtype bool but must be floating-point: use .astype(mx.float32)",
    ),
    Bad(
        "mx.conv2d(of(mx.complex64, 1, 8, 8, 4), ones(6, 3, 3, 4))",
        "input has dtype complex64 but must be floating-point: use .astype(mx.float32)",
    ),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), of(mx.complex64, 6, 3, 3, 4) * mx.array(1j))",
        "weight has dtype complex64, of which MLX drops the imaginary part: convolve both parts",
        "computes",
    ),
    # Strides, padding, dilation.
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=(1, 0))",
        "strides (1, 0), kernel dilation (1, 1) and input dilation (1, 1) must all be at least 1",
    ),
    Bad(
        "mx.conv1d(ones(1, 8, 4), ones(6, 3, 4), dilation=-1)",
        "strides (1,), kernel dilation (-1,) and input dilation (1,) must all be at least 1",
    ),
    Bad(
        "mx.conv_transpose1d(ones(1, 8, 4), ones(6, 3, 4), stride=0)",
        "strides (1,), kernel dilation (1,) and input dilation (0,) must all be at least 1",
    ),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=(1, 1, 1))",
        "padding must be an int or 2 ints, got (1, 1, 1)",
    ),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=(2,))", "stride must be an int or 2 ints, got (2,)"),
    Bad("mx.conv1d(ones(1, 8, 4), ones(6, 3, 4), stride=(2,))", "stride must be an int, got (2,)"),
    Bad(
        "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=((1, 1), (1, 1)))",
        "padding must be an int or 2 ints, got ((1, 1), (1, 1))",
    ),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), 1, 'same')", "padding must be an int or 2 ints, got 'same'"),
    Bad("mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=2.0)", "stride must be an int or 2 ints, got 2.0"),
    Bad(
        "mx.conv_general(ones(1, 8, 4), ones(6, 3, 4), stride=[2, 2])",
        "stride must be an int, got [2, 2]",
    ),
    Bad(
        "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=([1, 1, 1], [2, 2]))",
        "padding must be an int or 2 ints, got [1, 1, 1]",
    ),
    Bad(
        "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), input_dilation=(1, 1, 1))",
        "input_dilation must be an int or 2 ints, got (1, 1, 1)",
    ),
    Bad(
        "mx.conv_transpose2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), output_padding=(1,))",
        "output_padding must be an int or 2 ints, got (1,)",
    ),
    Bad(
        "mx.conv_transpose2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=6)",
        "kernel (3, 3) with dilation (1, 1) is larger than the padded input (0, 0)",
    ),
    Bad(
        "mx.conv_general(ones(1, 8, 4), ones(6, 3, 4), padding=([0], [-10]))",
        "padding (0,) before and (-10,) after takes more off than the input has: (8,)",
        "computes",
    ),
    # Things that are not arrays.
    Bad(
        "mx.conv2d(np.ones((1, 8, 8, 4)), ones(6, 3, 3, 4))",
        "input must be an mx.array, got ndarray: convert it with mx.array(...)",
    ),
    Bad("mx.conv2d(ones(1, 8, 8, 4), None)", "weight must be an mx.array, got NoneType: convert it with mx.array(...)"),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda c: c.call)
def test_message(bad: Bad):
    function = bad.call.removeprefix("mx.").split("(")[0]
    with checked_convolutions(lambda _: None), pytest.raises((GeometryError, TypeError)) as error:
        call(bad.call)
    assert str(error.value) == f"{function}: {bad.message}"


def in_new_process(expression: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import mlx.core as mx, numpy as np\n"
        "ones = lambda *shape: mx.ones(shape)\n"
        "of = lambda dtype, *shape: mx.ones(shape, dtype)\n"
        f"y = {expression}\nmx.eval(y)\nprint('computed', y.shape)\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="a division by zero ends the process on x86 only"
)
@pytest.mark.parametrize("bad", [c for c in CASES if c.plain == "dies"], ids=lambda c: c.call)
def test_plain_mlx_ends_the_process(bad: Bad):
    done = in_new_process(bad.call)
    assert "computed" not in done.stdout
    assert "Traceback" not in done.stderr
    assert done.returncode < 0 or "illegal value" in done.stdout + done.stderr


@pytest.mark.parametrize("bad", [c for c in CASES if c.plain == "computes"], ids=lambda c: c.call)
def test_plain_mlx_computes_what_is_not_a_convolution(bad: Bad):
    assert "computed" in in_new_process(bad.call).stdout


@pytest.mark.parametrize("bad", [c for c in CASES if c.plain == "raises"], ids=lambda c: c.call)
def test_plain_mlx_raises_too(bad: Bad):
    with pytest.raises((ValueError, TypeError)):
        mx.eval(call(bad.call))


GOOD = [
    "mx.conv1d(ones(2, 9, 4), ones(6, 3, 2), 2, 1, 2, 2)",
    "mx.conv1d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=2)",
    "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=(2, 1), padding=[1, 2])",
    "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=np.int64(2), padding=mx.array([1, 2]), groups=True)",
    "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=mx.array(2), dilation=range(1, 3))",
    "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=-1, stream=mx.cpu)",
    "mx.conv2d(ones(0, 8, 8, 4), ones(6, 3, 3, 4))",
    "mx.conv_transpose2d(ones(0, 8, 8, 4), ones(6, 3, 3, 4), stride=2)",
    "mx.conv1d(ones(1, 0, 4), ones(6, 3, 4), padding=2)",
    "mx.conv_transpose1d(ones(1, 0, 4), ones(6, 3, 4), stride=2)",
    "mx.conv2d(of(mx.float16, 1, 8, 8, 4), of(mx.bfloat16, 6, 3, 3, 4))",
    "mx.conv2d(of(mx.float16, 1, 8, 8, 4), of(mx.int32, 6, 3, 3, 4))",
    "mx.conv3d(ones(1, 4, 5, 6, 2), ones(3, 2, 3, 2, 2), padding=(1, 0, 1), dilation=2)",
    "mx.conv_transpose1d(ones(1, 8, 4), ones(6, 3, 2), 2, 1, 1, 1, 2)",
    "mx.conv_transpose1d(ones(1, 8, 4), ones(6, 3, 4), padding=3, stride=2)",
    "mx.conv_transpose3d(ones(1, 3, 4, 5, 2), ones(3, 2, 3, 2, 2), stride=2, output_padding=1)",
    "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=((1, 1), (2, 1)), input_dilation=(2, 1), flip=True)",
    "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), stride=[], padding=np.array([[1, 1], [2, 1]]))",
    "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=([], [1]), kernel_dilation=[2])",
    "mx.conv_general(ones(1, 8, 8, 4), ones(6, 3, 3, 4), padding=(1, 2))",
    "mx.conv_general(ones(1, 8, 4), ones(6, 3, 4), padding=([9], [-8]))",
]


@pytest.mark.parametrize("good", GOOD)
def test_what_mlx_computes_passes(good: str):
    plain = call(good)
    with checked_convolutions(lambda _: None):
        checked = call(good)
    assert (checked.dtype, checked.shape) == (plain.dtype, plain.shape)
    assert mx.array_equal(checked, plain)


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="float64 is a CPU type")
def test_float64_on_the_cpu_passes():
    with checked_convolutions(lambda _: None):
        assert mx.conv2d(of(mx.float64, 1, 8, 8, 4), of(mx.float64, 6, 3, 3, 4)).dtype == mx.float64


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_random_calls_are_judged_as_mlx_judges_them(function: str):
    """A checked call has MLX's shape; a rejected one is rejected by MLX, unless its kernel only just does not fit."""
    rng = np.random.default_rng(CONVOLUTIONS.index(function))
    rank = int(function[-2]) if function != "conv_general" else 2
    rejected = 0
    for _ in range(400):
        groups = int(rng.integers(1, 3)) if rank < 3 else 1
        size, kernel = rng.integers(1, 7, rank), rng.integers(1, 5, rank)
        x = ones(1, *size.tolist(), int(rng.integers(1, 3)) * groups)
        w = ones(groups * 2, *kernel.tolist(), int(rng.integers(1, 3)))
        options = {"stride": int(rng.integers(1, 4)), "padding": int(rng.integers(-1, 4)), "groups": groups}
        options["kernel_dilation" if function == "conv_general" else "dilation"] = int(rng.integers(1, 4))
        if function == "conv_general":
            options |= {"input_dilation": int(rng.integers(1, 4))}
        if "transpose" in function:
            options |= {"output_padding": int(rng.integers(0, 3))}
        try:
            with checked_convolutions(lambda _: None):
                checked = getattr(mx, function)(x, w, **options)
        except GeometryError as error:
            rejected += 1
            try:
                plain = getattr(mx, function)(x, w, **options)
            except ValueError:
                continue
            assert re.search("larger than the padded input|more off than the input has", str(error)), (x.shape, options)
            assert 1 in plain.shape[1:-1]
        else:
            assert checked.shape == getattr(mx, function)(x, w, **options).shape
    assert 20 < rejected < 380


def test_arguments_that_no_convolution_has_get_mlx_own_message():
    with checked_convolutions(lambda _: None):
        for bad in ("mx.conv2d(ones(1, 8, 8, 4))", "mx.conv2d(ones(1, 8, 8, 4), ones(6, 3, 3, 4), strides=2)"):
            with pytest.raises(TypeError, match="incompatible function arguments"):
                call(bad)
