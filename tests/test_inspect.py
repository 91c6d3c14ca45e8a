"""`convjit.inspect`: IR of every stage, explanations, sources, and its errors; and what CONVJIT_DUMP writes."""

import math

import mlx.core as mx
import mlx.nn as nn
import pytest
from xdsl.context import Context
from xdsl.parser import Parser

import convjit
from convjit.shell.universe import UNIVERSE


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
        self.norm = nn.BatchNorm(4)
        self.head = nn.Linear(4, 2)
        self.eval()

    def __call__(self, x):
        y = nn.silu(self.norm(self.layers[0](x)))
        y = nn.relu(self.layers[1](y) + y)
        return self.head(y.mean((1, 2)))


X = mx.random.normal((2, 6, 6, 3), key=mx.random.key(1))


@pytest.fixture(scope="module")
def fast():
    fast = convjit.compile(Block())
    mx.eval(fast(X))
    return fast


def parsed(text: str):
    context = Context()
    for name, dialect in UNIVERSE.all_dialects.items():
        context.register_dialect(name, dialect)
    from xdsl.universe import Universe

    for name, dialect in Universe.get_multiverse().all_dialects.items():
        if context.get_optional_dialect(name) is None and name not in context.registered_dialect_names:
            context.register_dialect(name, dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def test_every_stage_parses_again(fast):
    for stage in convjit.inspect.STAGES:
        text = convjit.inspect.ir(fast, stage)
        assert str(parsed(text)) == text.rstrip("\n")


def test_stages_show_what_their_names_say(fast):
    ir = {stage: convjit.inspect.ir(fast, stage) for stage in convjit.inspect.STAGES}
    assert 'mlx.primitive "Convolution"' in ir["traced"] and "conv." not in ir["traced"].replace("conv.weight", "")
    assert ir["raised"].count("conv.general") == 3 and "Convolution" not in ir["raised"]
    assert ir["fused"].count("conv.fused") == 3 and "conv.general" not in ir["fused"]
    assert "@prepare" in ir["scheduled"] and "schedule" in ir["scheduled"] and "conv.stretch" in ir["scheduled"]
    assert convjit.inspect.ir(fast) == ir["scheduled"]
    assert 'layer "layers.0"' in ir["raised"]


def test_the_ir_behind_a_pass(fast):
    assert convjit.inspect.ir(fast, "raise-conv") == convjit.inspect.ir(fast, "raised")
    with pytest.raises(ValueError, match=r"no stage 'no-such-pass'.*traced, raised, fused, scheduled"):
        convjit.inspect.ir(fast, "no-such-pass")


def test_the_ir_holds_no_weights(fast):
    """Parameters are arguments, named after their slots."""
    text = convjit.inspect.ir(fast, "traced")
    assert '"layers.0.weight"' in text and '"norm.running_mean"' in text and "dense<" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1e-40, 3.4e38, 1 / 3])
def test_unusual_constants_survive_printing(value):
    fast = convjit.compile(lambda x: mx.maximum(mx.conv2d(x, mx.ones((2, 1, 1, 3))), value))
    fast(X)
    for stage in convjit.inspect.STAGES:
        text = convjit.inspect.ir(fast, stage)
        assert str(parsed(text)) == text.rstrip("\n")


def test_explain(fast):
    explanation = convjit.inspect.explain(fast)
    assert explanation.name == "Block" and explanation.backend == "cpu" and explanation.reasons == ()
    assert [row.layer for row in explanation.rows] == ["layers.0", "layers.1", "head"]
    first, second, head = explanation.rows
    assert head.is_linear and head.convolution.endswith(", linear") and not second.is_linear
    assert "3" in first.convolution and first.kernel != "plain MLX"
    assert first.fused and second.fused
    text = str(explanation)
    assert text.startswith("Block: 2 of 2 convolutions and 1 of 1 linear layers on cpu kernels")
    assert all(row.layer in text and row.kernel in text for row in explanation.rows)


def test_explain_of_the_last_signature():
    fast = convjit.compile(lambda x: mx.conv2d(x, mx.ones((2, 1, 1, x.shape[-1]))))
    for channels in (3, 2):
        fast(X[..., :channels])
        assert len(convjit.inspect.explain(fast).rows) == 1
        assert f"tensor<2x6x6x{channels}xf32>" in convjit.inspect.ir(fast, "traced")


def test_explain_of_what_is_not_compiled():
    plain = convjit.compile(lambda x: nn.relu(x), fallback="quiet")
    plain(X)
    explanation = convjit.inspect.explain(plain)
    assert explanation.backend == "plain MLX" and explanation.rows == ()
    assert "it has no convolution" in str(explanation)
    for look in (convjit.inspect.ir, convjit.inspect.source):
        with pytest.raises(ValueError, match=r"runs as plain MLX: .*no convolution"):
            look(plain)


def test_explain_names_a_convolution_that_stays_plain():
    weight = mx.ones((2, 1, 1, 3))

    def function(x):
        y = mx.conv2d(x, weight)
        with mx.stream(mx.cpu):
            return y, mx.conv2d(x.astype(mx.float64), weight.astype(mx.float64))

    fast = convjit.compile(function, fallback="quiet")
    fast(X)
    explanation = convjit.inspect.explain(fast)
    (plain,) = (row for row in explanation.rows if row.kernel == "plain MLX")
    assert plain.note in str(explanation) and len(explanation.reasons) == 1
    assert "1 of 2 convolutions" in str(explanation)


def test_source(fast):
    everything = convjit.inspect.source(fast)
    for layer in ("layers.0", "layers.1"):
        text = convjit.inspect.source(fast, layer)
        assert text in everything and "#include" in everything
    with pytest.raises(ValueError, match=r"no kernel for layer 'layers.7'; there are 'layers.0', 'layers.1'"):
        convjit.inspect.source(fast, "layers.7")


def test_a_layer_that_is_called_twice():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    fast = convjit.compile(lambda x: conv(nn.relu(conv(x))))
    fast(X)
    rows = convjit.inspect.explain(fast).rows
    assert len(rows) == 2 and {row.layer for row in rows} <= {"conv", "conv#2"}
    assert convjit.inspect.source(fast, "conv") and convjit.inspect.source(fast, "conv#2")


def test_not_called_yet():
    fast = convjit.compile(Block())
    for look in (convjit.inspect.ir, convjit.inspect.source, convjit.inspect.explain):
        with pytest.raises(ValueError, match=r"convjit.compile\(Block\) has not compiled anything yet: call it once"):
            look(fast)


@pytest.mark.parametrize("other", [lambda x: x, nn.Conv2d(3, 4, 3), 3, None, mx.compile(lambda x: x)])
def test_not_a_compiled_function(other):
    for look in (convjit.inspect.ir, convjit.inspect.source, convjit.inspect.explain):
        with pytest.raises(TypeError, match=r"not a compiled function: .*; pass what convjit\.compile returned"):
            look(other)


def test_decorated_classes_and_methods():
    @convjit.compile
    class Compiled(Block):
        def __call__(self, x):
            return super().__call__(x)

        @convjit.compile
        def features(self, x):
            return nn.relu(self.layers[0](x))

    net = Compiled()
    net(X)
    expected = str(convjit.inspect.explain(net))
    assert "2 of 2 convolutions" in expected
    assert expected == str(convjit.inspect.explain(Compiled)) == str(convjit.inspect.explain(Compiled.__call__))
    net.features(X)
    assert "1 of 1 convolutions" in str(convjit.inspect.explain(net.features))
    assert str(convjit.inspect.explain(net.features)) == str(convjit.inspect.explain(Compiled.features))


def test_looking_changes_nothing(fast):
    before = fast(X)
    for stage in convjit.inspect.STAGES:
        convjit.inspect.ir(fast, stage)
    convjit.inspect.explain(fast), convjit.inspect.source(fast)
    assert mx.array_equal(fast(X), before)


def test_dump(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJIT_DUMP", str(tmp_path / "dump"))
    block = Block()
    fast = convjit.compile(block)
    fast(X), fast(X[:1])
    folders = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert folders == ["001-Block", "002-Block"]
    files = sorted(p.name for p in (tmp_path / "dump" / "001-Block").iterdir())
    assert files[0] == "00-traced.mlir" and files[1] == "01-raise-weight-gradient.mlir"
    for file in (tmp_path / "dump" / "001-Block").glob("*.mlir"):
        parsed(file.read_text())
    sources = {p.name for p in (tmp_path / "dump" / "001-Block" / "sources").iterdir()}
    assert {"head.c", "layers.0.c", "layers.1.c", "pool.c"} <= sources
    parameters = (tmp_path / "dump" / "001-Block" / "parameters.txt").read_text()
    assert "parameter layers.0.weight  (4, 3, 3, 3)" in parameters and parameters.startswith(
        "input     x  (2, 6, 6, 3)"
    )


def test_a_dump_that_cannot_be_written(tmp_path, monkeypatch):
    """The program is compiled all the same."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVJIT_DUMP", str(tmp_path / "file" / "dump"))
    fast = convjit.compile(Block(), fallback="error")
    with pytest.warns(RuntimeWarning, match=r"CONVJIT_DUMP: cannot write to .*dump \(Not a directory\)"):
        fast(X)
    assert convjit.inspect.explain(fast).backend == "cpu"
