"""Pipelines from outside: passes of the user's own, the command line, and what is said about mistakes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

import convjit
from convjit import passes
from convjit.backends import registry
from convjit.errors import PipelineError
from convjit.ir.conv import GeneralOp
from convjit.kernel import Kernel

FILECHECK = Path(__file__).parents[1] / "filecheck"

PLUGIN = """
from dataclasses import dataclass

from xdsl.passes import ModulePass
from xdsl.universe import Universe

from convjit.ir.conv import GeneralOp
from xdsl.dialects.builtin import StringAttr


@dataclass(frozen=True)
class RenamePass(ModulePass):
    name = "rename-layers"

    prefix: str = "net."

    def apply(self, ctx, op):
        for conv in op.walk():
            if isinstance(conv, GeneralOp):
                conv.layer = StringAttr(self.prefix + conv.layer.data)


UNIVERSE = Universe(all_passes={"rename-layers": lambda: RenamePass})
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package with an `xdsl.universe` entry point; returns its folder."""
    (tmp_path / "renaming.py").write_text(PLUGIN)
    info = tmp_path / "renaming-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: renaming\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xdsl.universe]\nrenaming = renaming:UNIVERSE\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def registered(monkeypatch):
    """Registrations made in a test end with it."""
    monkeypatch.setattr(passes, "_registered", {})


@pytest.fixture
def net():
    mx.random.seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    mx.eval(model.parameters())
    return model, mx.random.normal((1, 5, 5, 3))


def compiled(net, pipeline: str):
    model, x = net
    fast = convjit.compile(model, backend="simulator", fallback="error", pipeline=pipeline)
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-5, atol=1e-5)
    return fast


@pytest.mark.usefixtures("registered")
def test_a_registered_pass_runs_where_the_pipeline_names_it(net):
    seen = []

    @passes.register
    @dataclass(frozen=True)
    class CountPass(ModulePass):
        name = "count-convs"

        at_least: int = 0

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            seen.append((self.at_least, sum(isinstance(o, GeneralOp) for o in op.walk())))

    fast = compiled(net, "raise-conv,count-convs{at-least=1},fuse-epilogue")
    assert seen == [(1, 1)]
    assert "conv.general" in convjit.inspect.ir(fast, "count-convs")


@pytest.mark.usefixtures("plugin")
def test_a_pass_of_an_installed_universe_needs_no_registration(net):
    fast = compiled(net, 'raise-conv,rename-layers{prefix="my."},fuse-epilogue')
    assert [row.layer for row in convjit.inspect.explain(fast).rows] == ["my.layers.0"]


def test_passes_of_xdsl_run_too(net):
    compiled(net, "raise-conv,cse,fuse-epilogue,dce")


def test_without_passes_everything_stays_plain(net):
    model, x = net
    fast = convjit.compile(model, backend="simulator", fallback="quiet", pipeline="")
    assert mx.array_equal(fast(x), model(x))
    (row,) = convjit.inspect.explain(fast).rows
    assert (row.kernel, row.note) == (convjit.inspect.PLAIN, "no pass of the pipeline raises it")


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (
            "raise-conv,no-such-pass",
            "unknown pass 'no-such-pass' in the pipeline 'raise-conv,no-such-pass': .*fold-pad",
        ),
        ("fuse-epilogue{max-extra=1}", "pass 'fuse-epilogue' .*max_extra.*max_extras"),
        ("fuse-epilogue{max-extras=many}", "pass 'fuse-epilogue' .*many"),
        ("fuse-epilogue{", "cannot read the pipeline 'fuse-epilogue{'"),
        ("raise-conv,,cse", "cannot read the pipeline"),
    ],
)
def test_mistakes_are_named(pipeline, said):
    with pytest.raises(PipelineError, match=said):
        passes.run(ModuleOp([]), pipeline)


@pytest.mark.parametrize("fallback", ["warn", "error", "quiet"])
def test_a_mistake_is_no_reason_to_fall_back(net, fallback):
    model, x = net
    fast = convjit.compile(model, backend="simulator", fallback=fallback, pipeline="raise-conf")
    with pytest.raises(PipelineError, match="raise-conf"):
        fast(x)


@pytest.mark.parametrize("pipeline", ["raise-conv,fold-pad", "raise-weight-gradient,raise-conv,fuse-elementwise"])
def test_raised_convolutions_have_to_be_fused(net, pipeline):
    """Without a kernel they can neither run, nor are they plain MLX any more."""
    model, x = net
    step = nn.value_and_grad(model, lambda x: mx.sum(model(x)))
    for function in (model, step):
        with pytest.raises(PipelineError, match=r"raises the convolution '.*layers.0' .* add fuse-epilogue"):
            convjit.compile(function, pipeline=pipeline)(x)


@pytest.mark.parametrize("backend", ["cpu", "simulator"])
def test_schedules_are_chosen_once(net, backend):
    model, x = net
    fast = convjit.compile(model, backend=backend, pipeline=f"{passes.OPTIMIZE},choose-schedule{{backend=cpu}}")
    with pytest.raises(PipelineError, match="choose-schedule has run before"):
        fast(x)


def test_prepare_is_made_once():
    a, b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    pipeline = "raise-conv,hoist-prepare,fuse-epilogue"
    fast = convjit.compile(lambda x: mx.conv2d(mx.conv2d(x, a.weight * 2), b.weight), pipeline=pipeline)
    with pytest.raises(PipelineError, match="has made @prepare before"):
        fast(mx.ones((1, 6, 6, 3)))


@pytest.mark.usefixtures("registered")
def test_a_foreign_pass_that_breaks_the_ir_is_named():
    @passes.register
    @dataclass(frozen=True)
    class BreakPass(ModulePass):
        name = "break-it"

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            op.body.block.add_op(FuncOp("f", ((), ())))  # without a terminator
            raise_if_valid(op)

    def raise_if_valid(op: ModuleOp) -> None:
        with pytest.raises(VerifyException):
            op.verify()

    with pytest.raises(PipelineError, match="invalid IR behind the pass 'break-it'"):
        passes.run(ModuleOp([]), "break-it")


@pytest.mark.usefixtures("registered")
def test_a_foreign_pass_that_raises_is_named():
    @passes.register
    @dataclass(frozen=True)
    class RaisePass(ModulePass):
        name = "raise-it"

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            raise KeyError("lost")

    with pytest.raises(PipelineError, match="the pass 'raise-it' raised KeyError: 'lost'"):
        passes.run(ModuleOp([]), "raise-it")


@pytest.mark.usefixtures("registered")
def test_names_of_convjit_cannot_be_taken():
    @dataclass(frozen=True)
    class MinePass(ModulePass):
        name = "fold-pad"

        def apply(self, ctx: Context, op: ModuleOp) -> None: ...

    with pytest.raises(ValueError, match="'fold-pad' already"):
        passes.register(MinePass)


def run_tool(tool: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / tool), *arguments]
    environment = None if path is None else {"PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_convjit_opt_runs_passes_from_the_shell():
    done = run_tool("convjit-opt", "-p", "raise-conv", "--split-input-file", str(FILECHECK / "raise-conv.mlir"))
    assert done.returncode == 0, done.stderr
    assert "conv.general" in done.stdout


def test_plain_xdsl_opt_knows_the_passes_and_those_of_other_plugins(plugin):
    file = str(FILECHECK / "raise-conv.mlir")
    done = run_tool("xdsl-opt", "-p", "raise-conv,rename-layers,fuse-epilogue", "--split-input-file", file, path=plugin)
    assert done.returncode == 0, done.stderr
    assert 'layer "net.layers.0.conv1"' in done.stdout
    assert "conv.fused" in done.stdout


def test_convjit_opt_names_an_unknown_pass():
    done = run_tool("convjit-opt", "-p", "no-such-pass", str(FILECHECK / "raise-conv.mlir"))
    assert done.returncode != 0
    assert "no-such-pass" in done.stderr


@pytest.fixture
def refusing(monkeypatch):
    """A simulator that takes no convolution of three channels."""
    backend = registry.get("simulator")
    schedule = backend.schedule

    def refuse(kernel):
        is_refused = isinstance(kernel, Kernel) and kernel.geometry.in_channels == 3
        return "it has three channels" if is_refused else schedule(kernel)

    monkeypatch.setattr(backend, "schedule", refuse)


@pytest.mark.usefixtures("refusing")
def test_a_refused_convolution_stays_plain_in_its_place():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU())
    mx.eval(model.parameters())
    x = mx.random.normal((1, 5, 5, 3))
    fast = convjit.compile(model, backend="simulator", fallback="quiet")
    np.testing.assert_allclose(fast(x), model(x), rtol=1e-5, atol=1e-5)
    explanation = convjit.inspect.explain(fast)
    first, second = explanation.rows
    assert (first.layer, first.kernel, first.note) == ("layers.0", convjit.inspect.PLAIN, "it has three channels")
    assert second.kernel != convjit.inspect.PLAIN
    assert [row.ops for row in explanation.others] == ["Add Maximum"]  # behind the refused convolution


@pytest.mark.usefixtures("plugin", "refusing")
def test_a_refused_kernel_of_no_known_layer_ends_the_compilation(net):
    model, x = net
    fast = convjit.compile(
        model, backend="simulator", fallback="error", pipeline="raise-conv,rename-layers,fuse-epilogue"
    )
    with pytest.raises(convjit.CompileError, match=r"net.layers.0: it has three channels"):
        fast(x)
