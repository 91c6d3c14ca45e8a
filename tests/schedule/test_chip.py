"""Which chip is it, and what may a schedule count on."""

from __future__ import annotations

import pytest

from convjit.schedule.metal import chip
from convjit.schedule.metal.chip import CHIPS, parse, this_chip


@pytest.mark.parametrize(
    ("architecture", "device_name", "name", "cores"),
    [
        ("applegpu_g13g", "Apple M1", "M1", 8),
        ("applegpu_g13s", "Apple M1 Pro", "M1 Pro", 16),
        ("applegpu_g13s", "Apple M1 Max", "M1 Max", 32),
        ("applegpu_g14d", "Apple M2 Ultra", "M2 Ultra", 76),
        ("applegpu_g15s", "Apple M3 Max", "M3 Max", 40),
        ("applegpu_g16s", "Apple M4 Pro", "M4 Pro", 20),
        ("applegpu_g17g", "Apple M5", "M5", 10),
        ("applegpu_g17s", "Apple M5 Max", "M5 Max", 40),
        ("applegpu_g13g", "Apple Paravirtual device", "M1", 8),
        # Not there yet.
        ("applegpu_g16d", "Apple M4 Ultra", "M4 Ultra", 80),
        ("applegpu_g18g", "Apple M6", "M6", 10),
        ("applegpu_g19d", "Apple M7 Ultra", "M7 Ultra", 80),
        # No Apple GPU that MLX's kernels are made for.
        ("applegpu_g12p", "Apple A14", "M1 Pro", 16),
        ("", "AMD Radeon Pro 5500M", "M1 Pro", 16),
    ],
)
def test_device_info(architecture: str, device_name: str, name: str, cores: int) -> None:
    found = parse({"architecture": architecture, "device_name": device_name, "memory_size": 1 << 34})
    assert (found.name, found.cores) == (name, cores)


def test_unknown_device_info() -> None:
    assert parse({}) == chip.DEFAULT


def test_a_future_chip_keeps_its_generation() -> None:
    future = parse({"architecture": "applegpu_g18s", "device_name": "Apple M6 Max"})
    assert future.generation == 18 and future.teraflops == CHIPS["M5 Max"].teraflops


def test_rates_by_generation() -> None:
    assert [CHIPS[f"M{n}"].matrix_rate for n in range(1, 6)] == [0.8, 0.8, 0.9, 0.9, 0.9]
    assert [CHIPS["M1"].threadgroups_per_core(d) for d in ("f32", "f16", "bf16")] == [6, 9, 9]


def test_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVJIT_CHIP", "m4  max")
    assert this_chip() is CHIPS["M4 Max"]
    monkeypatch.setenv("CONVJIT_CHIP", "M9 Nano")
    with pytest.raises(ValueError, match=r"CONVJIT_CHIP is 'M9 Nano', no chip .* unset it, or choose of M1, M1 Pro, "):
        this_chip()


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVJIT_CHIP", raising=False)
    assert this_chip().generation >= 13
