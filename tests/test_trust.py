"""Metal kernels that fail their proof: the user sees right results, one warning, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit
from convjit import compiled
from convjit.backends import registry
from convjit.proof import trust
from convjit.storage import cache
from tests.metal_faults import BEST, ProvingBackend, image, net

SAYS = {
    "wrong index": "sampled outputs wrong here",
    "wrong last pixel": "sampled outputs wrong here",
    "not written": "its kernel gave nan at",
    "does not compile": "its kernel does not run: CompileError: ",
    "too many threads": "its kernel does not run: KernelError: ",
    "hangs": "its kernel does not run: KernelError: ",
    "cannot be written": "its kernel does not run: AttributeError: ",
}


@pytest.fixture(autouse=True)
def new_machine(tmp_path, monkeypatch):
    """No verdict of an earlier run counts."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    monkeypatch.setenv("CONVJIT_SIMULATOR_TIMEOUT", "2")
    monkeypatch.setattr(compiled, "_told_failures", set())


@pytest.fixture
def use(monkeypatch):
    def use_backend(*arguments, **options) -> ProvingBackend:
        backend = ProvingBackend(*arguments, **options)
        monkeypatch.setattr(registry, "get", lambda name: backend)
        return backend

    return use_backend


def fallback_warnings(fast, x):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        y = fast(x)
    return y, [str(w.message) for w in told if w.category is convjit.FallbackWarning]


def assert_right(y, model, x):
    np.testing.assert_allclose(np.array(y), np.array(model(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", SAYS)
def test_a_smaller_schedule_takes_the_place_of_one_that_fails(fault, use):
    backend, model, x = use(fault), net(), image()
    fast = convjit.compile(model, backend="simulator")
    y, told = fallback_warnings(fast, x)
    assert_right(y, model, x)
    (warning,) = told
    assert warning.startswith("convjit: Sequential: layers.0 has a smaller schedule, because of metal/direct.metal: ")
    assert SAYS[fault] in warning and "; reproduce with: python -m convjit repro " in warning
    assert [s.choices == BEST for s in backend.tries] == [True, False]
    (row,) = convjit.inspect.explain(fast).rows
    assert row.kernel != "plain MLX" and SAYS[fault] in row.note


def test_without_a_smaller_schedule_the_layer_stays_plain(use):
    use("wrong index", has_smaller=False)
    model, x = nn.Sequential(*net().layers, nn.MaxPool2d(2)), image()
    fast = convjit.compile(model, backend="simulator")
    y, (warning,) = fallback_warnings(fast, x)
    assert_right(y, model, x)
    assert (
        "layers.0 stays plain MLX: metal/direct.metal: its kernel gave" in warning and "; reproduce with: " in warning
    )
    with pytest.raises(convjit.CompileError, match="stays plain MLX"):
        convjit.compile(model, backend="simulator", fallback="error")(x)


def test_a_smaller_schedule_is_no_error(use):
    use("wrong index")
    model, x = net(), image()
    assert_right(convjit.compile(model, backend="simulator", fallback="error")(x), model, x)


def test_one_warning_for_several_kernels_and_functions(use):
    use("not written")
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1))
    x = image()
    fast = convjit.compile(model, backend="simulator")
    y, (warning,) = fallback_warnings(fast, x)
    assert_right(y, model, x)
    assert "layers.0 has" in warning and "layers.2 has" in warning
    again, told = fallback_warnings(convjit.compile(model, backend="simulator"), x)
    assert_right(again, model, x)
    assert told == []


def test_running_out_of_memory_is_no_verdict(use, monkeypatch, tmp_path):
    backend = use("none")
    load = backend.load

    def scarce(stretch):
        if stretch.poisoned:
            raise RuntimeError("[metal::malloc] Attempting to allocate 9 bytes")
        return load(stretch)

    monkeypatch.setattr(backend, "load", scarce)
    model, x = net(), image()
    assert_right(convjit.compile(model, backend="simulator", fallback="quiet")(x), model, x)
    assert not list(tmp_path.rglob("*.proof"))


def in_new_process(fault):
    done = subprocess.run([sys.executable, "-m", "tests.metal_faults", fault], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_a_right_kernel_is_proven_once_a_machine():
    for tries in (1, 0):
        status, told = in_new_process("none")
        assert status == 0 and told["tries"] == tries
        assert told["error"] < 1e-5 and told["warnings"] == [] and told["note"] == ""


def test_a_wrong_kernel_is_tried_once_a_machine_and_told_once_a_process():
    for tries in (2, 0):
        status, told = in_new_process("wrong index")
        assert status == 0 and told["tries"] == tries and told["error"] < 1e-5
        (warning,) = told["warnings"]
        assert "has a smaller schedule" in warning and told["kernel"] != "plain MLX"


def test_a_kernel_that_takes_the_process_down_does_so_twice():
    for _ in range(2):
        status, _ = in_new_process("dies")
        assert status == 7
    for tries in (1, 0):
        status, told = in_new_process("dies")
        assert status == 0 and told["tries"] == tries and told["error"] < 1e-5
        assert "two processes that tried it here ended without a verdict" in told["note"]
        assert "python -m convjit repro" in told["warnings"][0]


def test_a_user_who_kills_the_first_call_does_not_refute_its_kernels():
    """Several processes killed at once are one event; only a kernel that was tried once more is refuted."""
    status, _ = in_new_process("dies")
    assert status == 7
    (mark,) = cache.folder().rglob("trying.*")
    mark.with_suffix(".999999999").touch()
    status, told = in_new_process("none")
    assert status == 0 and told["tries"] == 1 and told["warnings"] == [] and told["note"] == ""


def test_a_process_that_is_still_at_it_is_not_dead(use, tmp_path):
    backend = use("none")
    model, x = net(), image()
    fast = convjit.compile(model, backend="simulator")
    seen = []
    load = backend.load

    def watched(stretch):
        seen.extend(p.name for p in tmp_path.rglob("trying.*"))
        return load(stretch)

    backend.load = watched
    mx.eval(fast(x))
    assert [name.rpartition(".")[2] for name in seen] == [str(os.getpid())]
    assert not list(tmp_path.rglob("trying.*"))
