"""A Metal backend on the simulator whose kernels have to prove themselves, and whose best schedule has a fault.

python -m tests.metal_faults <fault>     compiles and runs a small net in this process; tells what came of it as JSON
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import convjit
from convjit import proof
from convjit.backends import registry
from convjit.backends.simulator import SimulatorBackend
from convjit.emit.metal.dispatch import Dispatch
from convjit.schedule import Schedule
from convjit.schedule.metal.direct import direct

BEST = (("channels", 1), ("lanes", 4), ("pixels", 32))
"""Choices of the faulty schedule; the smaller one is `direct`'s own."""


def _with_body(old: str, new: str) -> Callable[[Dispatch], Dispatch]:
    def edit(one: Dispatch) -> Dispatch:
        assert old in one.text.body, one.text.body
        return replace(one, text=replace(one.text, body=one.text.body.replace(old, new)))

    return edit


_STORE = "output0[at"
FAULTS: dict[str, Callable[[Dispatch], Dispatch]] = {
    "wrong index": _with_body("input[from + c]", "input[from + (c == 1 ? 0 : c)]"),
    "wrong last pixel": _with_body("sum = sums[j]", "sum = sums[j] + (pixel == 41 ? 1.0f : 0.0f)"),
    "not written": _with_body(_STORE, "if (pixel == 17 && channel == 2) continue;\n    output0[at"),
    "does not compile": _with_body(_STORE, "undeclared = 1;\n    output0[at"),
    "too many threads": lambda one: replace(one, grid=(2048, 48, 2), threadgroup=(2048, 1, 1)),
    "hangs": _with_body(_STORE, "while (first_channel >= 0) { sums[0] += 1.0f; }\n    output0[at"),
    "cannot be written": lambda one: one.no_such_attribute,
    "none": lambda one: one,
}


class ProvingBackend(SimulatorBackend):
    """As the Metal backend on a device."""

    needs_proof = True

    def __init__(self, fault: str, *, has_smaller: bool = True):
        self.edit = FAULTS[fault]
        self.has_smaller = has_smaller
        self.tries: list[Schedule] = []

    def schedule(self, kernel):
        return Schedule("metal/direct.metal", BEST)

    def smaller(self, kernel, schedule):
        return direct(kernel) if self.has_smaller and schedule.choices == BEST else None

    def dispatches(self, kernel, schedule):
        whole = super().dispatches(kernel, schedule)
        return tuple(map(self.edit, whole)) if schedule.choices == BEST else whole

    def load(self, stretch):
        if stretch.poisoned:
            self.tries += [call.schedule for call in stretch.calls]
        return super().load(stretch)


def net() -> nn.Module:
    mx.random.seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU())


def image() -> mx.array:
    return mx.random.normal((2, 7, 6, 3), key=mx.random.key(1))


def main(fault: str) -> None:
    backend = ProvingBackend("none" if fault == "dies" else fault)
    registry.get = lambda name: backend
    if fault == "dies":
        prove = proof.prove
        proof.prove = lambda kernel, schedule, run: (
            os._exit(7) if schedule.choices == BEST else prove(kernel, schedule, run)
        )
    model, x = net(), image()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fast = convjit.compile(model, backend="simulator")
        y = fast(x)
    (row,) = convjit.inspect.explain(fast).rows
    print(
        json.dumps(
            {
                "error": float(np.abs(np.array(y) - np.array(model(x))).max()),
                "tries": len(backend.tries),
                "kernel": row.kernel,
                "note": row.note,
                "warnings": [str(w.message) for w in told if w.category is convjit.FallbackWarning],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
