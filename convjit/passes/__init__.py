"""The pipeline: one file, one name, one filecheck test a pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from convjit.errors import PipelineError
from convjit.kernel import Accuracy

if TYPE_CHECKING:
    from xdsl.context import Context
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

OPTIMIZE = (
    "raise-weight-gradient,raise-linear,raise-conv,raise-pool,raise-pool-gradient,raise-norm,raise-softmax,raise-gather,"
    "sink-transposes,merge-groups,fold-pad,fold-scale,fuse-epilogue,"
    "fuse-elementwise{across-moves=true},raise-rearrange"
)
"""The passes that a user's `pipeline=` replaces: from MLX's primitives to few, fused convolutions."""

CPU_ALONE = (
    "raise-linear",
    "raise-pool-gradient",
    "raise-pool",
    "raise-norm",
    "raise-softmax",
    "raise-gather",
    "raise-rearrange",
)
"""Those of them that are left out of any pipeline for another backend: there MLX's own ops are fast."""

LOWER = "choose-schedule{backend=BACKEND},hoist-prepare,form-stretches"
"""The passes that follow in any case: from fused convolutions to what a backend runs."""

STAGES = ("traced", "raised", "fused", "scheduled")
"""The stages of the IR that have a name of their own: what MLX traced, behind `raise-conv`, behind `fuse-epilogue`, and
what runs, behind the last pass. Any pass of the pipeline names the IR behind it, too."""

_CLASSES = {
    "raise-weight-gradient": "RaiseWeightGradientPass",
    "raise-linear": "RaiseLinearPass",
    "raise-conv": "RaiseConvPass",
    "raise-pool-gradient": "RaisePoolGradientPass",
    "raise-pool": "RaisePoolPass",
    "raise-norm": "RaiseNormPass",
    "raise-softmax": "RaiseSoftmaxPass",
    "raise-gather": "RaiseGatherPass",
    "sink-transposes": "SinkTransposesPass",
    "merge-groups": "MergeGroupsPass",
    "fold-pad": "FoldPadPass",
    "fold-scale": "FoldScalePass",
    "fuse-epilogue": "FuseEpiloguePass",
    "fuse-elementwise": "FuseElementwisePass",
    "raise-rearrange": "RaiseRearrangePass",
    "choose-schedule": "ChooseSchedulePass",
    "hoist-prepare": "HoistPreparePass",
    "form-stretches": "FormStretchesPass",
}
"""The class of each pass; its file has the pass's name."""

_registered: dict[str, type[ModulePass]] = {}


def register(pass_: type[ModulePass]) -> type[ModulePass]:
    """Make a pass of your own known to `convjit.compile(..., pipeline=...)` in this process; usable as a decorator.

    A pass that should also be known to `convjit-opt` and `xdsl-opt` belongs into an `xdsl.universe` entry point, which
    needs no registration. Registering a name again replaces the pass.

    Args:
        pass_: a frozen dataclass derived from `xdsl.passes.ModulePass`, with a class attribute `name`.

    Raises:
        ValueError: if convjit has a pass of this name.
    """
    if pass_.name in get_all_passes():
        raise ValueError(f"convjit has a pass {pass_.name!r} already; give yours another name")
    _registered[pass_.name] = pass_
    return pass_


def pipeline_for(backend: str, optimize: str | None = None, accuracy: Accuracy = "fast") -> str:
    """The whole pipeline as one spec string.

    Args:
        backend: the backend's name, which `choose-schedule` asks: "cpu", "metal" or "simulator".
        optimize: what stands in for `OPTIMIZE`; may be empty.
        accuracy: what schedules may trade for speed, see `kernel.Accuracy`.
    """
    passes = OPTIMIZE if optimize is None else optimize
    if backend != "cpu":
        passes = ",".join(part for part in passes.split(",") if part not in CPU_ALONE)
        passes = passes.replace("{across-moves=true}", "")  # moves are kernels on a CPU alone
    choices = backend if accuracy == "fast" else f"{backend} accuracy={accuracy}"
    return ",".join(part for part in (passes, LOWER.replace("BACKEND", choices)) if part)


def get_all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """Name -> loader of every pass of this package; importing this costs nothing."""
    return {name: partial(_load, name) for name in _CLASSES}


def _load(name: str) -> type[ModulePass]:
    return getattr(import_module(f"convjit.passes.{name.replace('-', '_')}"), _CLASSES[name])


def run(module: ModuleOp, pipeline: str, after: Callable[[ModulePass, ModuleOp], None] | None = None) -> None:
    """Run a pipeline over `module`, in place. What a pass from elsewhere leaves is verified.

    Args:
        module: what `trace.to_module` made.
        pipeline: passes of this package, registered ones, those of xDSL and of any `xdsl.universe` plugin, with their
            options, such as "raise-conv,cse,fuse-epilogue{max-extras=2}".
        after: called behind every pass with the pass and the module, for dumps and checks.

    Raises:
        PipelineError: for a pipeline that cannot be read, an unknown pass or option, and a pass from elsewhere that
            raises or leaves invalid IR.
    """
    from xdsl.context import Context

    passes = _parsed(pipeline)
    own = get_all_passes()
    context = Context()
    if any(pass_.name not in own for pass_ in passes):
        from xdsl.universe import Universe

        for name, dialect in Universe.get_multiverse().all_dialects.items():
            context.register_dialect(name, dialect)
    for pass_ in passes:
        if pass_.name in own:
            pass_.apply(context, module)
        else:
            _run_foreign(pass_, context, module)
        if after is not None:
            after(pass_, module)


def _run_foreign(pass_: ModulePass, context: Context, module: ModuleOp) -> None:
    from xdsl.utils.exceptions import VerifyException

    try:
        pass_.apply(context, module)
        module.verify()
    except VerifyException as e:
        raise PipelineError(f"invalid IR behind the pass {pass_.name!r}: {e}") from e
    except Exception as e:
        raise PipelineError(f"the pass {pass_.name!r} raised {type(e).__name__}: {e}") from e


def _parsed(pipeline: str) -> list[ModulePass]:
    from xdsl.utils.arg_spec import parse_pipeline
    from xdsl.utils.exceptions import ArgSpecParseError

    try:
        specs = list(parse_pipeline(pipeline))
    except ArgSpecParseError as e:
        raise PipelineError(f"cannot read the pipeline {pipeline!r}: {e}") from e
    known: dict[str, Callable[[], type[ModulePass]]] = get_all_passes()
    known.update((name, lambda pass_=pass_: pass_) for name, pass_ in _registered.items())
    if any(spec.name not in known for spec in specs):
        from xdsl.universe import Universe

        known = {**Universe.get_multiverse().all_passes, **known}
    passes: list[ModulePass] = []
    for spec in specs:
        if spec.name not in known:
            raise PipelineError(
                f"unknown pass {spec.name!r} in the pipeline {pipeline!r}: convjit has "
                f"{', '.join(get_all_passes())}; a pass of your own needs convjit.passes.register"
            )
        try:
            passes.append(known[spec.name]().from_spec(spec))
        except ValueError as e:
            raise PipelineError(f"pass {spec.name!r} in the pipeline {pipeline!r}: {e}") from e
    return passes
