"""Norms prove themselves: statistics of the wrong elements are found, and a bundle holds all that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest
from test_cpu_norm import norm_of, normalised

from convjit import proof
from convjit.kernel import Epilogue, Extra, Instruction, Norm
from convjit.proof import bundle
from convjit.schedule.cpu import norm
from convjit.schedule.cpu.machine import Machine

MACHINE = Machine(16, 32)

SCALED = Epilogue(
    ("f32", "bf16"), (Instruction("arith.extf", (1,), "f32"), Instruction("arith.mulf", (0, 2), "f32")), (3,)
)

NORMS = {
    "rows": norm_of((5, 700, 40)),
    "not centered": replace(norm_of((9, 400)), centered=False),
    "groups": norm_of((5, 61, 53, 24), 61 * 53, 4),
    "channels": norm_of((3, 3000, 17), 3000, 17),
    "an image": norm_of((1, 80, 90, 3), 7200),
    "scaled": replace(
        norm_of((3, 30, 30, 24), 900, 4), extras=(Extra((3, 1, 1, 24), "bf16"),), epilogue=SCALED, dtype="f16"
    ),
}

Damage = Callable[[Norm, np.ndarray], np.ndarray]
"""What a kernel takes the statistics of in place of its input."""


def without_last_pixels(kernel: Norm, x: np.ndarray) -> np.ndarray:
    """The last of two blocks is left out: as if its pixels were those of the first."""
    pixels = x.reshape(kernel.images, kernel.pixels, -1).copy()
    half = kernel.pixels // 2
    pixels[:, -half:] = pixels[:, :half]
    return pixels.reshape(x.shape)


def of_another_image(kernel: Norm, x: np.ndarray) -> np.ndarray:
    return np.roll(x.reshape(kernel.images, -1), 1, 0).reshape(x.shape)


def of_another_group(kernel: Norm, x: np.ndarray) -> np.ndarray:
    return np.roll(x, x.shape[-1] // kernel.groups, -1)


def run(kernel: Norm, damage: Damage | None = None, at: object = ...) -> proof.Run:
    def damaged(arrays: Sequence[mx.array]) -> list[mx.array]:
        x, *extras = (np.array(a.astype(mx.float32), np.float64) for a in arrays)
        y = normalised(kernel, x)
        if damage is not None:
            other = damage(kernel, x)
            view = (kernel.images, kernel.pixels, kernel.groups, -1)
            seen = other.reshape(view)
            mean = seen.mean((1, 3), keepdims=True) if kernel.centered else 0
            spread = np.sqrt(((seen - mean) ** 2).mean((1, 3), keepdims=True) + kernel.eps)
            y[at] = ((x.reshape(view) - mean) / spread).reshape(x.shape)[at]
        return [mx.array((y * np.prod(np.broadcast_arrays(y * 0 + 1, *extras), 0)).astype(np.float32))]

    return damaged


def verdict_on(kernel: Norm, damage: Damage | None = None, at: object = ...) -> proof.Verdict:
    schedule = norm.schedule(kernel, MACHINE)
    small = proof.for_proof(kernel, schedule)
    assert isinstance(small, Norm)
    return proof.prove(small, schedule, run(small, damage, at))


@pytest.mark.parametrize("name", NORMS)
def test_right_results_pass(name: str):
    assert verdict_on(NORMS[name]).is_right


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, of_another_image) for name in NORMS if name != "an image"),
        *((name, of_another_group) for name in ("groups", "channels", "scaled")),
        *((name, without_last_pixels) for name in ("groups", "channels", "an image", "scaled")),
    ],
)
@pytest.mark.parametrize("at", [..., np.s_[-1], np.s_[..., -1]], ids=["everywhere", "last", "channel tail"])
def test_statistics_of_the_wrong_elements_are_found(name: str, damage: Damage, at: object):
    verdict = verdict_on(NORMS[name], damage, at)
    assert verdict.wrong and "sampled outputs wrong here" in str(verdict)


def test_a_proof_takes_few_pixels():
    for name, shape in {
        "rows": (514, 40),
        "groups": (2 * (512 + 61 * 53 % 256), 24),
        "an image": (512 + 7200 % 256, 3),
        "scaled": (3, 900, 24),
    }.items():
        kernel = NORMS[name]
        assert proof.for_proof(kernel, norm.schedule(kernel, MACHINE)).operand_shapes[0] == shape, name


@pytest.mark.parametrize("name", NORMS)
def test_a_bundle_holds_the_kernel(name: str):
    assert bundle.kernel_of(json.loads(json.dumps(asdict(NORMS[name])))) == NORMS[name]
