"""What is chosen from measurements, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from convjit.backends import registry
from convjit.backends.cpu import CpuBackend, toolchain
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.schedule import Schedule
from convjit.storage import sources
from convjit.tuning import known
from convjit.tuning.known import Outcome, Timing

BACKEND = registry.get("cpu")
GEOMETRY = Geometry.of_shapes((1, 8, 8, 16), (64, 3, 3, 16), plain_window(2))
KERNEL = Kernel(GEOMETRY, "f32", (), identity_epilogue("f32"), ("f32",))
FIRST, OTHER, *_ = BACKEND.candidates(KERNEL)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("CONVJIT_TUNE", raising=False)


def outcome(first: float, other: float, own: float | None = None) -> Outcome:
    timings = (Timing(FIRST, first, first), Timing(OTHER, other, other))
    return Outcome(timings if own is None else (*timings, Timing(None, own, own)))


@pytest.mark.parametrize(
    ("seconds", "chosen", "note"),
    [
        ((1.0, 0.95), FIRST, "tuned: 1,000 ms"),
        ((1e-3, 0.9e-3), OTHER, "tuned: 0.9 ms, 1 ms before"),
        ((1e-3, 2e-3, 0.95e-3), FIRST, "tuned: 1 ms"),
        ((2e-3, 1e-3, 0.95e-3), OTHER, "tuned: 1 ms, 2 ms before"),
        ((2e-3, 1e-3, 0.5e-3), None, "MLX's own op is faster here (0.5 ms / 1 ms)"),
        ((1e-3, 3e-3, 5e-3), FIRST, "tuned: 1 ms"),
    ],
)
def test_only_the_clearly_faster_is_chosen(seconds: tuple[float, ...], chosen: Schedule | None, note: str) -> None:
    found = outcome(*seconds)
    assert (found.chosen.schedule, found.note()) == (chosen, note)


def test_on_a_busy_machine_medians_alone_decide_nothing() -> None:
    disturbed, same = Timing(FIRST, 5.0, 1.0), Timing(OTHER, 1.1, 1.0)
    assert Outcome((disturbed, same)).chosen is disturbed
    assert Outcome((disturbed, same, Timing(None, 1.0, 1.0))).chosen is disturbed


def test_kept_and_found_again() -> None:
    assert known.find(BACKEND, KERNEL) is None
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0, 4.0))
    assert known.find(BACKEND, KERNEL) == outcome(2.0, 1.0, 4.0)
    known.keep(BACKEND, KERNEL, outcome(1.0, 3.0))
    assert known.find(BACKEND, KERNEL) == outcome(1.0, 3.0)


def test_another_batch_is_another_kernel() -> None:
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0))
    larger = Geometry.of_shapes((2, 8, 8, 16), (64, 3, 3, 16), plain_window(2))
    assert known.find(BACKEND, Kernel(larger, "f32", (), identity_epilogue("f32"), ("f32",))) is None


@pytest.mark.parametrize("changed", ["threads", "cache", "model of the CPU"])
def test_another_machine_measures_for_itself(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it has in common with this one: a cache folder may be shared, an image copied."""
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0))
    other = CpuBackend()
    assert known.find(other, KERNEL)
    if changed == "model of the CPU":
        monkeypatch.setattr(toolchain, "cpu", lambda: "another")
        other = CpuBackend()
        other._toolchain = BACKEND._toolchain
    else:
        here = other._machine
        more = {"threads": here.threads + 1} if changed == "threads" else {"l2_bytes": 2 * here.l2_bytes}
        other._machine = replace(here, **more)
    assert other.fingerprint() == BACKEND.fingerprint() and known.find(other, KERNEL) is None


def test_measured_for_another_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = registry.get("simulator")
    known.keep(backend, KERNEL, outcome(2.0, 1.0))
    monkeypatch.setenv("CONVJIT_CHIP", "M4 Max")
    assert known.find(backend, KERNEL) is None


def test_not_used_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0))
    monkeypatch.setenv("CONVJIT_TUNE", "0")
    assert known.find(BACKEND, KERNEL) is None


def test_schedules_of_other_code_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0))
    monkeypatch.setattr(sources, "digest", lambda *folders: "changed")
    assert known.find(BACKEND, KERNEL) is None


@pytest.mark.parametrize("damage", ["", "{}", '{"timings": []}', '{"timings": [{"seconds": 1}]}', "[1, 2"])
def test_what_cannot_be_read_was_never_measured(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", lambda *a, **k: damage)
    known.keep(BACKEND, KERNEL, outcome(2.0, 1.0))
    assert known.find(BACKEND, KERNEL) is None
