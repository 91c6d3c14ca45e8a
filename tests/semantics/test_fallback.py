"""What happens where nothing can be compiled: warnings, errors, the user's own exceptions, and the way out."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
import warnings

import mlx.core as mx
import mlx.nn as nn
import pytest
from checks import Net, assert_close, fast_of, image, num_kernels, reasons, small_conv

import convjit
from convjit import replay
from convjit.backends.cpu import toolchain

CONV = small_conv()


def with_item(x):
    return CONV(x) * x.sum().item()


def with_eval(x):
    y = CONV(x)
    mx.eval(y)
    return y + 1


def with_print(x):
    y = CONV(x)
    print(y[0, 0, 0, 0])
    return y


def with_branch(x):
    y = CONV(x)
    return y if y.sum() > 0 else y - 1


def with_float(x):
    return CONV(x) * float(x.max())


def with_numpy(x):
    import numpy as np

    return CONV(x) * float(np.array(x).max())


def without_convolution(x):
    return nn.relu(x) * 2


def returning_nothing(x):
    CONV(x)


def with_inverse(x):
    return mx.linalg.inv(CONV(x)[..., :4, :4, 0] + 9 * mx.eye(4), stream=mx.cpu)


EVALUATES = "it evaluates an array"
CANNOT = {
    with_item: EVALUATES,
    with_eval: EVALUATES,
    with_print: EVALUATES,
    with_branch: EVALUATES,
    with_float: EVALUATES,
    with_numpy: EVALUATES,
    without_convolution: "it has no convolution",
    returning_nothing: "it returns no arrays",
    with_inverse: "primitive Inverse has no replay rule",
}


@pytest.mark.parametrize("plain", CANNOT, ids=lambda f: f.__name__)
def test_falls_back(plain):
    x = image()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = convjit.compile(plain)
        for y in (x, x, image(2, 6, 6, 3)):
            assert_close(fast(y), plain(y))
    (warning,) = caught
    message = str(warning.message)
    assert warning.category is convjit.FallbackWarning and warning.filename == __file__
    assert message.startswith(f"convjit: {plain.__name__}: runs as plain MLX: ") and CANNOT[plain] in message
    assert "\n" not in message

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = convjit.compile(plain, fallback="quiet")
        assert_close(quiet(x), plain(x))
    assert CANNOT[plain] in reasons(quiet)
    assert convjit.inspect.explain(quiet).backend == "plain MLX"

    strict = convjit.compile(plain, fallback="error")
    for _ in range(2):
        with pytest.raises(convjit.CompileError, match=f"convjit: {plain.__name__}: .*{re.escape(CANNOT[plain])}"):
            strict(x)


def test_the_warning_says_what_would_help():
    with pytest.warns(convjit.FallbackWarning, match=r"move that out of the compiled function"):
        convjit.compile(with_item)(image())


def test_some_signatures_fall_back_and_others_do_not():
    def plain(x, fancy):
        return with_item(x) if fancy else CONV(x)

    fast, x = convjit.compile(plain, fallback="quiet"), image()
    for fancy in (True, False, True, False):
        assert_close(fast(x, fancy), plain(x, fancy))
    strict = fast_of(plain)
    assert_close(strict(x, False), CONV(x))
    with pytest.raises(convjit.CompileError):
        strict(x, True)
    assert_close(strict(x, False), CONV(x))
    assert num_kernels(strict) == 1


def test_one_unusual_convolution_among_others():
    """float64 and complex run as they do in MLX; what can be compiled is compiled."""
    x = image()
    double = CONV.weight.astype(mx.float64)

    def plain(x):
        wide = mx.conv2d(x.astype(mx.float64), double, padding=1)
        return nn.relu(CONV(x)), wide

    fast = convjit.compile(plain, fallback="quiet")
    with mx.stream(mx.cpu):
        assert_close(fast(x), plain(x))
        assert fast(x)[1].dtype == mx.float64
        assert_close(fast(x)[1], plain(x)[1], rtol=1e-12)
    assert num_kernels(fast) == 1


# --- the user's own exceptions ---------------------------------------------------------------------------------


def fails_deep_inside(x):
    y = CONV(x)
    raise LookupError(f"no such thing as {y.shape}")


def outer(x):
    return fails_deep_inside(x) + 1


@pytest.mark.parametrize("fallback", ["warn", "error", "quiet"])
def test_exceptions_are_the_users(fallback):
    fast = convjit.compile(outer, fallback=fallback)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(LookupError, match=r"no such thing as \(1, 6, 6, 4\)") as caught:
                fast(image())
        frames = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[-2:] == ["outer", "fails_deep_inside"]
        assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit, MemoryError])
def test_other_exceptions_pass(error):
    def plain(x):
        CONV(x)
        raise error

    with pytest.raises(error):
        convjit.compile(plain)(image())


def test_wrong_shapes_name_the_layer():
    net = Net()
    fast = fast_of(net)
    with pytest.raises(ValueError, match=r"conv2d 'conv': input has 5 channels but weight \(4, 3, 3, 3\) expects 3"):
        fast(image(1, 6, 6, 5))
    assert_close(fast(image()), net(image()))


def test_wrong_number_of_arguments():
    fast = fast_of(lambda x, w: mx.conv2d(x, w))
    for args in ((), (image(),), (image(), image(), image())):
        with pytest.raises(TypeError):
            fast(*args)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        fast(image(), image(4, 3, 3, 3), stride=1)


def test_an_error_that_comes_and_goes():
    ready = False

    def plain(x):
        if not ready:
            raise RuntimeError("not ready")
        return CONV(x)

    fast = fast_of(plain)
    with pytest.raises(RuntimeError, match="not ready"):
        fast(image())
    ready = True
    assert_close(fast(image()), CONV(image()))
    assert num_kernels(fast) == 1


# --- options ---------------------------------------------------------------------------------------------------


def test_disable_and_enable():
    net, x = Net(), image()
    fast = fast_of(net)
    convjit.disable()
    try:
        assert_close(fast(x), net(x))
        with pytest.raises(ValueError, match="has not compiled anything yet"):
            convjit.inspect.explain(fast)
        assert_close(mx.grad(lambda x: fast(x).sum())(x), mx.grad(lambda x: net(x).sum())(x))
    finally:
        convjit.enable()
    assert_close(fast(x), net(x))
    assert num_kernels(fast) == 3


def test_bad_options():
    with pytest.raises(ValueError, match="fallback must be"):
        convjit.compile(CONV, fallback="loud")
    with pytest.raises(TypeError, match="takes a function or a module"):
        convjit.compile(3)
    with pytest.raises(TypeError, match=r"a subclass of nn\.Module"):
        convjit.compile(int)


def test_unknown_backend_and_pipeline():
    x = image()
    with pytest.raises(convjit.CompileError, match="there is no backend 'tpu'"):
        convjit.compile(CONV, backend="tpu", fallback="error")(x)
    with pytest.warns(convjit.FallbackWarning, match="there is no backend 'tpu'"):
        assert_close(convjit.compile(CONV, backend="tpu")(x), CONV(x))
    with pytest.raises((convjit.CompileError, ValueError), match="no-such-pass"):
        convjit.compile(CONV, pipeline="raise-conv,no-such-pass", fallback="error")(x)


def test_a_gpu_that_is_not_metal(monkeypatch):
    """The default device is read at every call and is part of the key."""
    net, x = Net(), image()
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    fast = convjit.compile(net, fallback="quiet")
    fast(x)
    assert num_kernels(fast) == 3
    with monkeypatch.context() as patch:
        patch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
        patch.setattr(mx.metal, "is_available", lambda: False)
        assert_close(fast(x), net(x))
        assert "the default device is a GPU that is not Metal" in reasons(fast)
    assert_close(fast(x), net(x))
    assert len(fast._entries) == 2


def test_mlx_compilation_stays_as_the_user_set_it():
    """MLX cannot trace some compiled functions; whatever is done about it, the user's setting is restored."""
    x = image()
    resized = nn.Sequential(CONV, nn.Upsample(2, mode="cubic"))
    probe = []

    def is_compiled():
        probe.clear()
        identity = mx.compile(lambda x: (probe.append(1), x + 1)[1])
        identity(x), identity(x)
        return len(probe) == 1

    at_first = is_compiled()  # MLX itself does without, where there is no compiler for its own kernels
    mx.disable_compile()
    try:
        assert not is_compiled()
        fast = convjit.compile(resized, fallback="quiet")
        assert_close(fast(x), resized(x))
        assert not is_compiled()
    finally:
        mx.enable_compile()
    assert_close(fast_of(resized)(x), resized(x))
    assert is_compiled() == at_first


def test_works_while_mlx_compilation_is_off():
    net, x = Net(), image()
    mx.disable_compile()
    try:
        fast = fast_of(net)
        for _ in range(2):
            assert_close(fast(x), net(x))
        gradient = mx.grad(lambda x: fast(x).square().sum())(x)
        assert_close(gradient, mx.grad(lambda x: net(x).square().sum())(x))
    finally:
        mx.enable_compile()
    assert num_kernels(fast) == 6  # of the gradient: forward and backward


# --- processes of their own ------------------------------------------------------------------------------------


def run(body, tmp_path, **environment):
    script = tmp_path / "script.py"
    script.write_text("import mlx.core as mx, mlx.nn as nn, warnings, convjit\n" + textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CONVJIT_CACHE_DIR": str(tmp_path / "cache"), **environment},
    )


PLAIN_RESULTS = """
    conv, x = nn.Conv2d(3, 4, 3), mx.random.normal((1, 6, 6, 3))
    fast = convjit.compile(conv)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert mx.allclose(fast(x), conv(x), atol=1e-5)
    print(*(f"{w.category.__name__} {w.message}" for w in caught), sep="; ")
"""


CC = shlex.join(toolchain._compiler())


def compiler(folder, body):
    script = folder / "cc"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_a_compiler_that_fails(tmp_path):
    done = run(PLAIN_RESULTS, tmp_path, CONVJIT_CC=compiler(tmp_path, "echo out of cheese >&2; exit 3"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FallbackWarning convjit: Conv2d: runs as plain MLX: ")
    assert "exit status 3" in done.stdout and "out of cheese" in done.stdout and "CONVJIT_CC" in done.stdout
    assert done.stdout.count("FallbackWarning") == 1


def test_a_compiler_that_fails_at_kernels_only(tmp_path):
    body = f'case "$*" in *-dM*) exec {CC} "$@";; esac; echo internal compiler error >&2; exit 1'
    done = run(PLAIN_RESULTS, tmp_path, CONVJIT_CC=compiler(tmp_path, body))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FallbackWarning") == 1 and "internal compiler error" in done.stdout


def test_a_compiler_that_makes_nonsense(tmp_path):
    """It succeeds, and what it writes is no library."""
    body = f'case "$*" in *-dM*) exec {CC} "$@";; esac; while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    done = run(PLAIN_RESULTS, tmp_path, CONVJIT_CC=compiler(tmp_path, body))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FallbackWarning") == 1


@pytest.mark.parametrize("when", ["always", "kernels"])
def test_a_compiler_that_hangs(tmp_path, when):
    body = "sleep 100" if when == "always" else f'case "$*" in *-dM*) exec {CC} "$@";; esac; sleep 100'
    hurry = "import convjit.backends.cpu.toolchain as toolchain\ntoolchain.TIMEOUT = 0.5\n"
    done = run(hurry + textwrap.dedent(PLAIN_RESULTS), tmp_path, CONVJIT_CC=compiler(tmp_path, body))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FallbackWarning") == 1 and "was stopped after 0.5 seconds" in done.stdout


def test_no_such_compiler(tmp_path):
    done = run(PLAIN_RESULTS, tmp_path, CONVJIT_CC="/no/such/compiler")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FallbackWarning") == 1 and "/no/such/compiler" in done.stdout


def test_no_compiler_for_the_simulator(tmp_path):
    body = PLAIN_RESULTS.replace("compile(conv)", "compile(conv, backend='simulator')")
    for chosen, complaint in (
        ("/no/such/c++", "CONVJIT_CXX"),
        (compiler(tmp_path, "echo broken >&2; exit 1"), "broken"),
    ):
        done = run(body, tmp_path, CONVJIT_CXX=chosen)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("FallbackWarning") == 1 and complaint in done.stdout


def test_convjit_disable(tmp_path):
    body = """
        calls = []
        @convjit.compile(fallback="error")
        def f(x):
            calls.append(x.item())
            return x * 2
        assert f(mx.array(3.0)).item() == 6.0 and calls == [3.0]
        convjit.enable()
        try:
            f(mx.array(3.0))
        except convjit.CompileError as e:
            print("enabled")
    """
    done = run(body, tmp_path, CONVJIT_DISABLE="1")
    assert done.returncode == 0 and done.stdout == "enabled\n", done.stderr


def test_importing_is_cheap(tmp_path):
    """xDSL and Jinja load on the first compile."""
    done = run("import sys; print([m for m in ('xdsl', 'jinja2', 'numpy') if m in sys.modules])", tmp_path)
    assert "xdsl" not in done.stdout and "jinja2" not in done.stdout, done.stdout + done.stderr


def test_with_warnings_as_errors(tmp_path):
    """`python -W error` turns the fall-back into an exception, once, and leaves everything usable."""
    body = """
        warnings.simplefilter("error", convjit.FallbackWarning)
        f = convjit.compile(lambda x: x * 2)
        try:
            f(mx.array(3.0))
        except convjit.FallbackWarning:
            print("raised")
        assert f(mx.array(3.0)).item() == 6.0
    """
    done = run(body, tmp_path)
    assert done.returncode == 0 and done.stdout == "raised\n", done.stderr


def test_a_replay_that_only_its_first_run_can_refuse(monkeypatch):
    def refuse(inputs, arguments, outputs):
        raise replay.UnknownPrimitive("MLX's primitive Reduce with these slices has no replay rule")

    monkeypatch.setitem(replay.RULES, "Reduce", replay.Rule(2, refuse))
    conv, x = small_conv(), image()
    fast = convjit.compile(lambda x: conv(x).max(axis=1))
    with pytest.warns(convjit.FallbackWarning, match="runs as plain MLX: MLX's primitive Reduce"):
        assert_close(fast(x), conv(x).max(axis=1))
    assert_close(fast(x), conv(x).max(axis=1))
    assert num_kernels(fast) == 0
    with pytest.raises(convjit.CompileError, match="Reduce"):
        convjit.compile(lambda x: conv(x).max(axis=1), fallback="error")(x)
