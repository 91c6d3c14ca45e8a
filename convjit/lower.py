"""Tape -> scheduled module: the whole pipeline, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from convjit import dump, passes
from convjit.backends import Backend
from convjit.capture import Capture
from convjit.emit.region import kernel_of
from convjit.inspect import STAGES
from convjit.ir.conv import FusedOp
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.trace import to_module

_PASS_OF_STAGE = {"raised": "raise-conv", "fused": "fuse-epilogue"}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A captured function as scheduled IR.

    Attributes:
        module: `@prepare` and `@forward`.
        constants: the arrays behind traced arguments of kind "constant".
        pipeline: the passes that made it.
    """

    module: ModuleOp
    constants: list[mx.array]
    pipeline: str

    def kernels(self) -> Iterator[tuple[str, Kernel, Schedule]]:
        """Layer, kernel and schedule of every convolution on a kernel of ours, in program order."""
        for op in self.module.walk():
            if isinstance(op, FusedOp) and op.schedule is not None:
                yield _layer(op), kernel_of(op), op.schedule.data

    def sources(self, backend: Backend) -> dict[str, str]:
        """The kernel texts by layer; a layer that is called twice is numbered."""
        sources: dict[str, str] = {}
        for layer, kernel, schedule in self.kernels():
            name, count = layer, 1
            while name in sources:
                count += 1
                name = f"{layer}#{count}"
            sources[name] = backend.source(kernel, schedule)
        return sources

    def refusals(self) -> list[str]:
        """One sentence for each convolution that stays plain MLX."""
        return [f"{row.layer} stays plain MLX: {row.note}" for row in explain_rows(self) if row.kernel == PLAIN]


PLAIN = "plain MLX"


def lower(captured: Capture, backend: str, pipeline: str | None, folder: Path | None) -> Lowered:
    """Run the pipeline over a capture.

    Args:
        captured: the traced function.
        backend: the backend's name, for the `schedule` pass.
        pipeline: the passes, as one spec string, or None for `passes.PIPELINE`.
        folder: where to dump the IR after every pass, or None.
    """
    spec = passes.pipeline_for(backend, pipeline)
    module, constants = to_module(captured.tape, captured.arguments)
    passes.run(module, spec, _dumper(module, folder))
    return Lowered(module, constants, spec)


def _dumper(module: ModuleOp, folder: Path | None) -> Callable[[ModulePass, ModuleOp], None] | None:
    if folder is None:
        return None
    number = 0
    (folder / "00-traced.mlir").write_text(f"{module}\n")

    def write(pass_: ModulePass, module: ModuleOp) -> None:
        nonlocal number
        number += 1
        (folder / f"{number:02}-{dump.safe_name(pass_.name)}.mlir").write_text(f"{module}\n")

    return write


def stage_text(captured: Capture, lowered: Lowered, stage: str) -> str:
    """The IR at a stage, made again from the tape.

    Raises:
        ValueError: for a stage that is neither one of `STAGES` nor a pass of the pipeline.
    """
    module, _ = to_module(captured.tape, captured.arguments)
    if stage == "traced":
        return str(module)
    if stage == "scheduled":
        return str(lowered.module)
    texts: dict[str, str] = {}
    wanted = _PASS_OF_STAGE.get(stage, stage)

    def keep(pass_: ModulePass, module: ModuleOp) -> None:
        if pass_.name == wanted:
            texts[wanted] = str(module)

    passes.run(module, lowered.pipeline, keep)
    if wanted not in texts:
        raise ValueError(f"no stage {stage!r}: stages are {', '.join(STAGES)}, passes are {lowered.pipeline}")
    return texts[wanted]
