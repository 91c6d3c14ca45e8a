"""Processes of their own: compilers that fail, variables of the environment, imports."""

import os
import shlex
import subprocess
import sys
import textwrap

import pytest

from convjit.backends.cpu import toolchain


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
