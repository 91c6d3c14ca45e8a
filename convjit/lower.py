"""Tape -> scheduled module: the whole pipeline, with dumps, and again for whoever wants to look."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from convjit import passes
from convjit.backends import Backend, BackendError
from convjit.emit.region import kernel_of, other_kernel_of
from convjit.explain import rows
from convjit.ir.conv import ConvolutionOp, KernelOp, name_of
from convjit.ir.others import OtherOp
from convjit.kernel import AnyKernel, Kernel, OtherKernel
from convjit.options import Options
from convjit.passes import STAGES
from convjit.passes.choose_schedule import Failed, Refused
from convjit.passes.fuse_elementwise import PREFIX
from convjit.passes.raise_conv import named_convolutions
from convjit.passes.raise_gather import NAME as GATHER
from convjit.passes.raise_linear import named_products
from convjit.passes.raise_norm import named_norms
from convjit.passes.raise_pool import named_pools
from convjit.passes.raise_pool_gradient import named_pool_gradients
from convjit.passes.raise_rearrange import NAME as REARRANGE
from convjit.passes.raise_softmax import named_softmaxes
from convjit.passes.raise_weight_gradient import named_weight_gradients
from convjit.reporting import dump
from convjit.reporting.report import PLAIN
from convjit.schedule import Schedule
from convjit.tracing.capture import Capture
from convjit.tracing.trace import to_module

_PASS_OF_STAGE = {"raised": "raise-conv", "fused": "fuse-epilogue"}
AfterPass = Callable[[ModulePass, ModuleOp], None]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A captured function as scheduled IR.

    Attributes:
        module: `@prepare` and `@forward`.
        constants: the arrays behind traced arguments of kind "constant".
        fused: its convolutions on kernels, in program order.
        others: its other kernels, in program order.
        pipeline: the passes that made it.
        refused: layer -> why it is not on a kernel of ours.
        failed: those of them that failed their proof -> why; their ops stay plain MLX.
        slower: the layers that could be, but MLX's own op was measured to be faster.
    """

    module: ModuleOp
    constants: list[mx.array]
    fused: dict[ConvolutionOp, Kernel]
    others: dict[OtherOp, OtherKernel]
    pipeline: str
    refused: dict[str, str]
    failed: dict[str, str]
    slower: frozenset[str]

    def kernels(self) -> Iterator[tuple[str, Kernel, Schedule]]:
        """Layer, kernel and schedule of every convolution on a kernel of ours, in program order."""
        for op, kernel in self.fused.items():
            if op.schedule is not None:
                yield name_of(op), kernel, op.schedule.data

    def all_kernels(self) -> dict[KernelOp, AnyKernel]:
        """The kernel of every op that is one."""
        return {**self.fused, **self.others}

    def work(self) -> list[tuple[str, AnyKernel, Schedule]]:
        """Name, kernel and schedule of all that runs on a kernel of ours, convolutions first."""
        others = [
            (name_of(op), kernel, op.schedule.data) for op, kernel in self.others.items() if op.schedule is not None
        ]
        return [*self.kernels(), *others]

    def sources(self, backend: Backend) -> dict[str, str]:
        """The kernel texts by name."""
        return {name: backend.source(kernel, schedule) for name, kernel, schedule in self.work()}

    @property
    def computes_convolutions(self) -> bool:
        """Is there one that is not plain MLX?"""
        return any(row.kernel != PLAIN for row in rows(self.module))

    def refusals(self) -> list[str]:
        """One sentence for each convolution that has to stay plain MLX."""
        plain = [row for row in rows(self.module) if row.kernel == PLAIN and row.layer not in self.slower]
        return [f"{row.layer} stays plain MLX: {row.note}" for row in plain]

    def substitutes(self) -> list[str]:
        """One sentence for each kernel that failed its proof and that another schedule or MLX stands in for."""
        notes = [(name_of(op), op.attributes.get("note")) for op in self.all_kernels()]
        smaller = [f"{name} has a {note.data}" for name, note in notes if isinstance(note, StringAttr)]
        return smaller + [f"{name} stays plain MLX: {reason}" for name, reason in self.failed.items()]


def lower(captured: Capture, backend: str, options: Options, folder: Path | None) -> Lowered:
    """Run the pipeline over a capture.

    Args:
        captured: the traced function.
        backend: the backend's name, for `choose-schedule`.
        options: `pipeline`, the passes up to `fuse-elementwise`, and `accuracy`.
        folder: where to dump the IR behind every pass, or None.

    Raises:
        PipelineError: for a pipeline that cannot be read or run.
        BackendError: if the backend refuses a kernel that no convolution of the user's function stands for.
    """
    pipeline = passes.pipeline_for(backend, options.pipeline, options.accuracy)
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    slower: frozenset[str] = frozenset()
    while True:
        module, constants = _traced(captured, refused, failed)
        spec = _without(pipeline, failed)
        try:
            passes.run(module, spec, _dumper(module, folder))
        except Refused as e:
            if e.reasons.keys() <= refused.keys():  # a pass of the user's lost the layer's mark, or its name
                raise BackendError(str(e)) from e
            refused.update(e.reasons)
            slower |= e.slower
            failed.clear()  # elementwise ops have other numbers now
            continue
        except Failed as e:
            if e.reasons.keys() <= failed.keys():  # a pass of the user's named them
                raise BackendError(str(e)) from e
            failed.update(e.reasons)
            continue
        fused = {op: kernel_of(op) for op in module.walk() if isinstance(op, ConvolutionOp)}
        others = {op: other_kernel_of(op) for op in module.walk() if isinstance(op, OtherOp)}
        return Lowered(module, constants, fused, others, spec, refused, failed, slower)


def _without(pipeline: str, failed: Iterable[str]) -> str:
    """The pipeline whose `fuse-elementwise` leaves out the kernels of these names, without `raise-gather` and
    `raise-rearrange` if one of theirs was among them: they share a text."""
    if {name.partition("#")[0] for name in failed} & {REARRANGE, GATHER}:
        pipeline = re.sub(r"\b(raise-gather|raise-rearrange)\b,?", "", pipeline).rstrip(",")
    numbers = [name.removeprefix(PREFIX) for name in failed if name.startswith(PREFIX)]
    if not numbers:
        return pipeline
    return re.sub(r"\bfuse-elementwise\b(\{[^}]*\})?", lambda found: _leaving_out(found[1] or "", numbers), pipeline)


def _leaving_out(options: str, numbers: Sequence[str]) -> str:
    """`fuse-elementwise` with these options, such as "{without=7}", and without these clusters, too."""
    before = re.findall(r"without=([\d,]+)", options)
    others = re.sub(r"without=[\d,]+", "", options).strip("{} ")
    without = f"without={','.join([*before, *numbers])}"
    return f"fuse-elementwise{{{' '.join(filter(None, [others, without]))}}}"


def _traced(captured: Capture, refused: dict[str, str], failed: dict[str, str]) -> tuple[ModuleOp, list[mx.array]]:
    module, constants = to_module(captured.tape, captured.arguments, captured.constant_names, captured.gradients_by)
    if not refused and not failed:
        return module, constants
    convolutions = [
        *named_convolutions(module),
        *((layer, gradient.root) for layer, gradient in named_weight_gradients(module)),
        *named_products(module),
    ]
    others = [
        *((name, pool.root) for name, pool in named_pools(module)),
        *((name, gradient.root) for name, gradient in named_pool_gradients(module)),
        *((name, norm.root) for name, norm in named_norms(module)),
        *named_softmaxes(module),
    ]
    for named, reasons in ((convolutions, refused), (others, failed)):
        for name, op in named:
            if name in reasons:
                op.attributes["refused"] = StringAttr(reasons[name])
    return module, constants


def _dumper(module: ModuleOp, folder: Path | None) -> AfterPass | None:
    if folder is None:
        return None
    number = 0
    (folder / "00-traced.mlir").write_text(str(module) + "\n")

    def write(pass_: ModulePass, module: ModuleOp) -> None:
        nonlocal number
        number += 1
        (folder / f"{number:02}-{dump.safe_name(pass_.name)}.mlir").write_text(str(module) + "\n")

    return write


def stage_text(captured: Capture, lowered: Lowered, stage: str) -> str:
    """The IR at a stage, made again from the tape.

    Raises:
        ValueError: for a stage that is neither one of `STAGES` nor a pass of the pipeline.
    """
    if stage == "scheduled":
        return str(lowered.module)
    module, _ = _traced(captured, lowered.refused, lowered.failed)
    if stage == "traced":
        return str(module)
    texts: dict[str, str] = {}
    wanted = _PASS_OF_STAGE.get(stage, stage)

    def keep(pass_: ModulePass, module: ModuleOp) -> None:
        if pass_.name == wanted:
            texts[wanted] = str(module)

    passes.run(module, lowered.pipeline, keep)
    if wanted not in texts:
        raise ValueError(f"no stage {stage!r}: stages are {', '.join(STAGES)}, passes are {lowered.pipeline}")
    return texts[wanted]
