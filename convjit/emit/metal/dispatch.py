"""What a template gives: one or more dispatches of Metal kernels that together compute what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from convjit.emit.metal.language import OWN_FUNCTIONS
from convjit.emit.render import render
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.storage.cache import content_key

Size = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MetalText:
    """A kernel as `mx.fast.metal_kernel` takes it. It does not depend on the batch.

    Attributes:
        name: of the kernel, with a digest of its text.
        header: functions and tables it needs.
        body: what it does. MLX writes the signature.
        inputs: names of the arguments it reads.
        outputs: names of the arguments it writes.
    """

    name: str
    header: str
    body: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One launch of one kernel.

    Attributes:
        text: the kernel.
        inputs: the values it reads, by number: the convolution's input, its packed weight or the gradient of its
            output, the extras, or what elementwise ops read; then the outputs of the dispatches before this one.
        outputs: shape and dtype ("f32", ...) of the arrays it writes; those of the last dispatch are the results,
            unless `results` says otherwise.
        grid: threads an axis, a multiple of the threadgroup.
        threadgroup: threads of a threadgroup an axis.
        sizes: numbers that the text does not hold, such as a number of rows: arguments behind the arrays.
        results: which results of the kernel its first outputs are, where they come from several dispatches.
    """

    text: MetalText
    inputs: tuple[int, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    grid: Size
    threadgroup: Size
    sizes: tuple[int, ...] = ()
    results: tuple[int, ...] = ()


def results_among(dispatches: Sequence[Dispatch], outputs: Sequence[Sequence[T]]) -> list[T]:
    """The results of a kernel among the outputs of its dispatches."""
    named: dict[int, T] = {}
    for one, written in zip(dispatches, outputs, strict=True):
        named.update(zip(one.results, written[: len(one.results)], strict=True))
    return [named[n] for n in sorted(named)] or [*outputs[-1]]


def write_text(
    template: str, variables: dict[str, Any], inputs: Sequence[tuple[str, str]], outputs: Sequence[tuple[str, str]]
) -> MetalText:
    """The text by a template.

    Args:
        template: such as "metal/direct.metal".
        variables: of the template. `tables`, if there, are lines of constants that belong in front of the kernel.
        inputs, outputs: (name, dtype) of the arguments.
    """
    body = render(template, **variables).strip("\n")
    used = [f"cj_{f}" for f in OWN_FUNCTIONS if f"cj_{f}(" in body]
    header = render("metal/functions.metal", used=used, tables=variables.get("tables", ()))
    stem = template.removeprefix("metal/").removesuffix(".metal")
    digest = content_key(header, body, *(dtype for _, dtype in (*inputs, *outputs)))[:12]
    names = (tuple(name for name, _ in arguments) for arguments in (inputs, outputs))
    return MetalText(f"cj_{stem}_{digest}", header, body, *names)


def arguments_of(kernel: Kernel) -> list[tuple[str, str]]:
    """Name and dtype of what a kernel reads: input, packed weight or gradient of the output, extras."""
    second = "output_gradient" if kernel.operation == "weight_gradient" else "weight"
    return [("input", kernel.dtype), (second, kernel.dtype), *extras_of(kernel)]


def extras_of(kernel: Kernel) -> list[tuple[str, str]]:
    """Name and dtype of the extras."""
    return [(f"extra{i}", extra.dtype) for i, extra in enumerate(kernel.extras)]


def results_of(kernel: Kernel) -> list[tuple[str, str]]:
    """Name and dtype of what a kernel writes."""
    return [(f"output{i}", dtype) for i, dtype in enumerate(kernel.result_dtypes)]


def only(text: MetalText, kernel: Kernel, grid: Size, threadgroup: Size) -> tuple[Dispatch, ...]:
    """The dispatch of a kernel that does everything."""
    outputs = tuple(zip(kernel.result_shapes, kernel.result_dtypes, strict=True))
    return (Dispatch(text, tuple(range(2 + len(kernel.extras))), outputs, grid, threadgroup),)


def by_threads(kernel: Kernel, schedule: Schedule, variables: dict[str, Any], rows: int) -> tuple[Dispatch, ...]:
    """The dispatch of a kernel without matrices: a thread is `channels` of one of `rows` outputs or strips of them.

    The schedule's `lanes` and `pixels` are the threads of a threadgroup along channels and along rows.
    """
    text = write_text(schedule.template, variables, arguments_of(kernel), results_of(kernel))
    lanes, pixels = schedule.number("lanes"), schedule.number("pixels")
    blocks = kernel.geometry.out_channels // schedule.number("channels")
    grid = (padded(blocks, lanes), padded(rows, pixels), kernel.geometry.batch)
    return only(text, kernel, grid, (lanes, pixels, 1))


def padded(extent: int, multiple: int) -> int:
    """`extent` rounded up: threads of a grid."""
    return -(-extent // multiple) * multiple
