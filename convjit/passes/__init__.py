"""The pipeline: one file, one name, one filecheck test a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

OPTIMIZE = "raise-conv,fold-pad,fold-scale,fuse-epilogue"
"""The passes that a user's `pipeline=` replaces: from MLX's primitives to few, fused convolutions."""

LOWER = "schedule{backend=BACKEND},hoist-prepare,form-stretches"
"""The passes that follow in any case: from fused convolutions to what a backend runs."""


def pipeline_for(backend: str, optimize: str | None = None) -> str:
    """The whole pipeline as one spec string, for a backend by name."""
    return f"{OPTIMIZE if optimize is None else optimize},{LOWER.replace('BACKEND', backend)}"


def get_all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """Name -> loader of every pass; importing this costs nothing."""

    def raise_conv() -> type[ModulePass]:
        from convjit.passes.raise_conv import RaiseConvPass

        return RaiseConvPass

    def fold_pad() -> type[ModulePass]:
        from convjit.passes.fold_pad import FoldPadPass

        return FoldPadPass

    def fold_scale() -> type[ModulePass]:
        from convjit.passes.fold_scale import FoldScalePass

        return FoldScalePass

    def fuse_epilogue() -> type[ModulePass]:
        from convjit.passes.fuse_epilogue import FuseEpiloguePass

        return FuseEpiloguePass

    def schedule() -> type[ModulePass]:
        from convjit.passes.schedule import SchedulePass

        return SchedulePass

    def hoist_prepare() -> type[ModulePass]:
        from convjit.passes.hoist_prepare import HoistPreparePass

        return HoistPreparePass

    def form_stretches() -> type[ModulePass]:
        from convjit.passes.form_stretches import FormStretchesPass

        return FormStretchesPass

    return {
        "raise-conv": raise_conv,
        "fold-pad": fold_pad,
        "fold-scale": fold_scale,
        "fuse-epilogue": fuse_epilogue,
        "schedule": schedule,
        "hoist-prepare": hoist_prepare,
        "form-stretches": form_stretches,
    }


def run(module: ModuleOp, pipeline: str, after: Callable[[ModulePass, ModuleOp], None] | None = None) -> None:
    """Run a pipeline over `module`, in place.

    Args:
        module: what `trace.to_module` made.
        pipeline: pass names of this package, of xDSL or of any `xdsl.universe` plugin, such as "raise-conv,cse".
        after: called behind every pass with the pass and the module, for dumps and checks.

    Raises:
        ValueError: for an unknown pass or option.
    """
    from xdsl.context import Context
    from xdsl.dialects import get_all_dialects
    from xdsl.passes import PassPipeline

    context = Context()
    for name, dialect in get_all_dialects().items():
        context.register_dialect(name, dialect)
    passes = get_all_passes()
    if any(name.split("{")[0].strip() not in passes for name in _pass_names(pipeline)):
        from xdsl.universe import Universe

        passes = {**Universe.get_multiverse().all_passes, **passes}

    def callback(previous: ModulePass | None, module: ModuleOp, _: ModulePass | None) -> None:
        if after is not None and previous is not None:
            after(previous, module)

    PassPipeline.parse_spec(passes, pipeline, callback).apply(context, module)


def _pass_names(pipeline: str) -> list[str]:
    names: list[str] = []
    depth = 0
    start = 0
    for position, character in enumerate(f"{pipeline},"):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            names.append(pipeline[start:position])
            start = position + 1
    return names
