"""`choose-schedule{backend=cpu}`: every fused convolution gets a schedule of its backend, and a weight packed for it.

    %y = conv.fused %x, %w window <...> {...} : (tensor<...>, tensor<64x3x3x64xf32>) -> tensor<...>
->
    %p = conv.pack %w window <...> schedule <"cpu/direct.c", ...> : tensor<...> -> !conv.packed<tensor<64x3x3x64xf32>>
    %y = conv.fused %x, %p window <...> schedule <"cpu/direct.c", ...> {...} : (tensor<...>, !conv.packed<...>) -> ...

Two kernels that read one weight in the same order share its packed form; a weight gradient reads both of its operands
as they are, and gets a schedule only; so do kernels that are no convolutions. A convolution that the backend refuses
raises `Refused`: the caller marks its `Convolution` with the reason and runs the pipeline again, so that exactly what
MLX traced stays in its place. Other kernels that it refuses, or that failed their proof, raise `Failed`: in the next
run the passes that make them leave them out. A schedule that failed its proof on this machine is not chosen again
(`convjit.proof.trust`); the attribute `note` says so. Where candidates were measured on this machine
(`convjit.tuning`), the fastest is chosen; the attribute `tuned` says so, and if it is MLX's own op, the kernel is
refused. The option `accuracy` ("precise", "fast", "fastest") says what may be traded for speed; an attribute of that
name keeps it, if it is not "fast".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from convjit.backends import Backend, registry
from convjit.emit.region import kernel_of, other_kernel_of
from convjit.errors import PipelineError
from convjit.ir.attributes import ScheduleAttr, WindowAttr
from convjit.ir.conv import ConvolutionOp, FusedOp, GeneralOp, KernelOp, PackOp, name_of
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.norm import NormOp
from convjit.ir.others import OtherOp
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.rearrange import RearrangeOp
from convjit.ir.softmax import SoftmaxOp
from convjit.kernel import Accuracy
from convjit.passes.values import forward_of
from convjit.proof import trust
from convjit.tuning import known


class Refused(Exception):
    """A backend cannot take some kernels.

    Attributes:
        reasons: layer -> why, in a few words.
        slower: those of them that it could take, but MLX's own op was measured to be faster.
    """

    def __init__(self, reasons: dict[str, str], slower: frozenset[str]):
        super().__init__("; ".join(f"{layer}: {reason}" for layer, reason in reasons.items()))
        self.reasons = reasons
        self.slower = slower


class Failed(Exception):
    """A backend cannot take some kernels that are no convolutions, or they failed their proof here; nothing can take
    their place.

    Attributes:
        reasons: the kernel's name -> why, in a few words.
    """

    def __init__(self, reasons: dict[str, str]):
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons


def _decide(ops: list[ConvolutionOp], backend: Backend) -> list[ScheduleAttr]:
    schedules: list[ScheduleAttr] = []
    refused: dict[str, str] = {}
    slower: set[str] = set()
    for op in ops:
        layer, kernel = name_of(op), kernel_of(op)
        measured = known.find(backend, kernel)
        if measured and measured.chosen is measured.plain:
            refused[layer] = measured.note()
            slower.add(layer)
            continue
        choice = trust.choose(backend, kernel, measured.ours.schedule if measured else None)
        if isinstance(choice, str):
            refused[layer] = choice
            continue
        schedules.append(ScheduleAttr(choice.schedule))
        if choice.note:
            op.attributes["note"] = StringAttr(choice.note)
        elif measured:
            op.attributes["tuned"] = StringAttr(measured.note())
    if refused:
        raise Refused(refused, frozenset(slower))
    return schedules


def _schedule_others(ops: Sequence[OtherOp], backend: Backend) -> None:
    failed: dict[str, str] = {}
    for op in ops:
        choice = trust.choose(backend, other_kernel_of(op))
        if isinstance(choice, str):
            failed[name_of(op)] = choice
            continue
        op.properties["schedule"] = ScheduleAttr(choice.schedule)
        if choice.note:
            op.attributes["note"] = StringAttr(choice.note)
    if failed:
        raise Failed(failed)


@dataclass(frozen=True)
class ChooseSchedulePass(ModulePass):
    """See the module's docstring.

    Attributes:
        backend: the name of a backend in `backends.registry`.
        accuracy: see `kernel.Accuracy`.
    """

    name = "choose-schedule"

    backend: str = "cpu"
    accuracy: Accuracy = "fast"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            block = function.body.block
            if any(isinstance(o, KernelOp) and o.schedule for o in block.ops):
                raise PipelineError(f"{self.name} has run before; every pipeline ends with it by itself")
            if unfused := next((o for o in block.ops if isinstance(o, GeneralOp)), None):
                layer = unfused.layer.data if unfused.layer else "conv"
                raise PipelineError(
                    f"the pipeline raises the convolution {layer!r} and makes no kernel of it: add fuse-epilogue"
                )
            kernels = [o for o in block.ops if isinstance(o, ConvolutionOp)]
            if self.accuracy != "fast":
                for kernel in kernels:
                    kernel.attributes["accuracy"] = StringAttr(self.accuracy)
            packs: dict[tuple[SSAValue, WindowAttr, ScheduleAttr], SSAValue] = {}
            for conv, schedule in zip(kernels, _decide(kernels, registry.get(self.backend)), strict=True):
                conv.properties["schedule"] = schedule
                if not isinstance(conv, FusedOp):
                    continue
                key = (conv.weight, conv.window, schedule)
                if key not in packs:
                    pack = PackOp(conv.weight, conv.window, schedule)
                    pack.result.name_hint = conv.weight.name_hint
                    block.insert_op_before(pack, conv)
                    packs[key] = pack.result
                conv.operands[1] = packs[key]
            # one that is left out gives the elementwise ops behind it other numbers
            for kind in (PoolOp, PoolGradientOp, NormOp, SoftmaxOp, ElementwiseOp, RearrangeOp):
                _schedule_others([o for o in block.ops if isinstance(o, kind)], registry.get(self.backend))
