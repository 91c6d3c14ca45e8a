"""What `mx.fast.metal_kernel` kernels a function launches, with MLX's own text: no Metal device needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of one kernel.

    Attributes:
        name: the kernel's function in `text`.
        text: the source that MLX hands to the Metal compiler, behind its preamble.
        grid: threads an axis.
        threadgroup: threads of a threadgroup an axis.
        inputs: the names, in the trace, of the arrays it reads.
        outputs: name, shape and dtype of the arrays it writes.
        copies_inputs: does it get a copy of an input that does not lie row by row, as MLX does by default?
    """

    name: str
    text: str
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, tuple[int, ...], mx.Dtype], ...]
    copies_inputs: bool = True


@dataclass(frozen=True, slots=True)
class Trace:
    """A function made of kernels only: its launches in order, between values that have names."""

    inputs: tuple[str, ...]
    constants: Mapping[str, mx.array]
    launches: tuple[Launch, ...]
    outputs: tuple[str, ...]


def capture(function: Callable[..., Sequence[mx.array]], *arrays: mx.array) -> Trace:
    """Trace `function(*arrays)`, which returns a list of arrays. Nothing is evaluated.

    Raises:
        ValueError: if the function does anything but launching `mx.fast.metal_kernel` kernels.
    """
    events: list[dict[str, Any]] = []
    mx.export_function(events.append, function, *arrays)
    (inputs,) = (e["inputs"] for e in events if e["type"] == "inputs")
    (outputs,) = (e["outputs"] for e in events if e["type"] == "outputs")
    (constants,) = (e["constants"] for e in events if e["type"] == "constants")
    primitives = [e for e in events if e["type"] == "primitive"]
    if foreign := sorted({p["name"] for p in primitives} - {"CustomKernel"}):
        raise ValueError(
            f"the function also runs {', '.join(foreign)}: the simulator runs Metal kernels only; "
            "evaluate everything else before, and pass it as an argument"
        )
    return Trace(
        inputs=tuple(name for name, _, _ in inputs),
        constants=dict(constants),
        launches=tuple(_launch(p) for p in primitives),
        outputs=tuple(name for name, _, _ in outputs),
    )


def _launch(primitive: dict[str, Any]) -> Launch:
    name, text, *sizes, _, copies_inputs = primitive["arguments"][:10]
    return Launch(
        name=name,
        text=text,
        grid=(sizes[0], sizes[1], sizes[2]),
        threadgroup=(sizes[3], sizes[4], sizes[5]),
        inputs=tuple(i for i, _, _ in primitive["inputs"]),
        outputs=tuple((o, tuple(shape), dtype) for o, shape, dtype in primitive["outputs"]),
        copies_inputs=copies_inputs,
    )
