"""Elementwise kernels prove themselves: right ones pass, broken ones are found, told, and left to MLX."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import convjit
from convjit import proof
from convjit.__main__ import main
from convjit.backends import registry
from convjit.backends.cpu import CpuBackend
from convjit.kernel import Elementwise, Epilogue, Extra, Instruction, Result
from convjit.proof import bundle, elementwise, trust
from convjit.schedule import Schedule

LANES = CpuBackend()._toolchain.machine.lanes
UNITS = Schedule("cpu/elementwise.c", (("column_block", 2 * LANES), ("lanes", LANES), ("row_block", 8)))


@pytest.fixture(autouse=True)
def fresh_verdicts(tmp_path, monkeypatch):
    """No verdict of an earlier run counts; kernels are compiled anew, too."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})


def steps(*ops: tuple[str, *tuple[int, ...]]) -> tuple[Instruction, ...]:
    return tuple(Instruction(name, tuple(operands), "f32") for name, *operands in ops)


def normalised(shape: tuple[int, ...] = (40, 3, 2 * LANES + 5), dtype: str = "f32") -> Elementwise:
    """(x - mean) * scale, its sum, and the sum of its squares."""
    channels = (1, 1, shape[-1])
    first = steps(("arith.extf", 0)) if dtype != "f32" else ()
    x, base = (3, 4) if first else (0, 3)
    body = [*first, *steps(("arith.subf", x, 1), ("arith.mulf", base, 2), ("arith.mulf", base + 1, base + 1))]
    results = [base + 1, base + 1, base + 2]
    if first:
        body.append(Instruction("arith.truncf", (base + 1,), dtype))
        results[0] = base + 3
    operands = (Extra(shape, dtype), Extra(channels, "f32"), Extra(channels, "f32"))
    sums = (Result(shape[-1:], "f32", True),) * 2
    return Elementwise(
        shape,
        operands,
        Epilogue(tuple(o.dtype for o in operands), tuple(body), tuple(results)),
        (Result(shape, dtype), *sums),
    )


def flat(extent: int) -> Elementwise:
    """x * y where x > 0, else y: one long row."""
    zero, greater = Instruction("arith.constant", (), "f32", 0.0), Instruction("arith.cmpf", (0, 2), "i1", "ogt")
    body = (zero, greater, *steps(("arith.mulf", 0, 1), ("arith.select", 3, 4, 1)))
    operands = (Extra((extent,), "f32"), Extra((extent,), "f32"))
    return Elementwise((extent,), operands, Epilogue(("f32", "f32"), body, (5,)), (Result((extent,), "f32"),))


def inner(shape: tuple[int, int, int] = (5, 7, 9)) -> Elementwise:
    """x + y, where y is the same in all rows of the second axis, and the sum of that."""
    operands = (Extra(shape, "f32"), Extra((shape[0], 1, shape[2]), "f32"))
    results = (Result(shape, "f32"), Result(shape[-1:], "f32", True))
    return Elementwise(shape, operands, Epilogue(("f32", "f32"), steps(("arith.addf", 0, 1)), (2, 2)), results)


KERNELS = {
    "rows": normalised(),
    "rows of f16": normalised(dtype="f16"),
    "rows of bf16": normalised(dtype="bf16"),
    "a row": flat(5 * LANES * 2 + 3),
    "three axes": inner(),
}


@pytest.fixture
def text(monkeypatch):
    """A backend whose text of every kernel has passed through a function, and that function's setter."""
    backend = CpuBackend()

    def use(edit) -> CpuBackend:
        made = backend._source
        monkeypatch.setattr(backend, "_source", lambda k, s: replace(made(k, s), text=edit(made(k, s).text)))
        return backend

    return use


def prove(backend: CpuBackend, kernel: Elementwise, seed: int = 0) -> proof.Verdict:
    small = proof.for_proof(kernel, UNITS)
    return proof.prove(small, UNITS, proof.runner(backend, small, UNITS), seed)


@pytest.mark.parametrize("name", KERNELS)
def test_right_kernels_pass(name: str, text):
    backend = text(lambda whole: whole)
    for seed in range(3):
        verdict = prove(backend, KERNELS[name], seed)
        assert verdict.is_right and verdict.checked > 50, str(verdict)


def replaced(old: str, new: str):
    def edit(whole: str) -> str:
        assert old in whole, f"{old} is not in {whole}"
        return whole.replace(old, new, 1)

    return edit


MUTATIONS = {
    ("rows", "another op"): (" - e1;", " + e1;"),
    ("rows", "a store that is missing"): ("store_f32(at->y0 +", "(void)(at->y0 +"),
    ("rows", "the last row of each unit"): ("row + 1 < end", "row + 1 < end - 2"),
    ("rows", "the last columns"): ("if (column < last)", "if (0)"),
    ("rows", "sums without odd rows"): ("even[n] + odd[n]", "even[n]"),
    ("rows", "a unit that is not added"): ("part < parts", "part < parts - 1"),
    ("rows", "a sum of another channel"): ("sum[c] += sums[c]", "sum[c] += sums[c ^ 1]"),
    ("rows of f16", "a unit that is not added"): ("part < parts", "part < parts - 1"),
    ("rows of bf16", "another op"): (" - e1;", " + e1;"),
    ("rows of bf16", "the last row"): ("least(row + ROW_BLOCK, rows(call))", "least(row + ROW_BLOCK, rows(call) - 1)"),
    ("a row", "another relation"): (" > ", " < "),
    ("a row", "the remainder"): ("if (n < last)", "if (0)"),
    ("a row", "a unit too few"): ("(call->out_extent + UNIT - 1) / UNIT", "call->out_extent / UNIT"),
    ("a row", "another element"): ("at->x1 + row", "at->x1 + (row ? row - 1 : 0)"),
    ("three axes", "another row of an operand"): ("rest /= 7", "rest /= 6"),
    ("three axes", "an operand that is not broadcast"): ("at->x1 + i0 * 9", "at->x1 + 0 * i0"),
}


@pytest.mark.parametrize(("name", "fault"), MUTATIONS)
def test_a_broken_text_is_found(name: str, fault: str, text):
    verdict = prove(text(replaced(*MUTATIONS[name, fault])), KERNELS[name])
    assert verdict.wrong and not verdict.error, str(verdict)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_one_term_of_a_sum_that_is_missing(dtype: str):
    """Whatever the storage type of what is summed: their length bounds the error of sums."""
    kernel = normalised((700, 2, 3), dtype)

    def run(arrays, kept):
        x, mean, scale = (a.astype(mx.float32) for a in arrays)
        y = (x - mean) * scale
        sums = [mx.sum(value * kept, axis=(0, 1)) for value in (y, y * y)]
        return [y.astype(arrays[0].dtype), *sums]

    one_missing = mx.where(mx.arange(700) == 123, 0.0, 1.0)[:, None, None]
    assert proof.prove(kernel, UNITS, lambda arrays: run(arrays, 1.0)).is_right
    assert proof.prove(kernel, UNITS, lambda arrays: run(arrays, one_missing)).wrong > 2


def test_what_nobody_wrote_is_found_wherever_it_is():
    kernel = normalised((700, 2, 3))
    run = proof.runner(CpuBackend(), kernel, UNITS)

    def forgetful(arrays):
        whole, *sums = (np.array(r) for r in run(arrays))
        whole[345, 1, 2] = np.nan
        return [mx.array(a) for a in (whole, *sums)]

    assert proof.prove(kernel, UNITS, forgetful).wrong == 1


def test_logarithms_and_roots_read_what_is_positive():
    operands = (Extra((60,), "f32"), Extra((60,), "f32"))
    body = steps(("math.absf", 0), ("math.log", 2), ("math.sqrt", 1), ("arith.mulf", 3, 4))
    kernel = Elementwise((60,), operands, Epilogue(("f32", "f32"), body, (5,)), (Result((60,), "f32"),))
    x, y = (np.array(a) for a in elementwise.inputs(kernel, np.random.default_rng(0)))
    assert (x < 0).any() and (x > 0).any() and (y > 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_sum", [False, True])
def test_what_is_infinite_or_nan_everywhere_passes_without_a_warning(is_sum: bool):
    body = steps(("arith.subf", 0, 0), ("arith.divf", 0, 1), ("arith.mulf", 2, 1))
    shape = (6, 7)
    results = tuple(Result(shape[1:] if is_sum else shape, "f32", is_sum) for _ in range(2))
    kernel = Elementwise(shape, (Extra(shape, "f32"),), Epilogue(("f32",), body, (2, 3)), results)
    assert prove(CpuBackend(), kernel).is_right


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        (normalised((9, 1, 5)), (9, 5)),
        (normalised((70, 3, 5)), (16 + 210 % 8, 5)),
        (normalised((1, 1, 5)), (1, 5)),
        (inner((5, 7, 9)), (5, 7, 9)),
        (inner((50, 7, 9)), (8 + 50 % 8, 7, 9)),
        (inner((50, 800, 9)), (2, 800, 9)),
        (flat(7), (7,)),
        (flat(4001 * LANES + 3), (5 * LANES + 3,)),
    ],
)
def test_two_units_and_the_remainder_are_enough(kernel: Elementwise, shape: tuple[int, ...]):
    small = proof.for_proof(kernel, UNITS)
    assert small.shape == shape and small.any_batch() == kernel.any_batch()
    assert small == proof.for_proof(small, UNITS)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_survive_json(name: str):
    kernel = KERNELS[name]
    assert repr(bundle.kernel_of(json.loads(json.dumps(asdict(kernel))))) == repr(kernel)


def step(x: mx.array, w: mx.array, gamma: mx.array) -> list[mx.array]:
    """Two kernels of elementwise ops behind a convolution, and a weight gradient."""

    def loss(w: mx.array) -> tuple[mx.array, mx.array]:
        y = mx.conv2d(x, w, padding=1)
        z = mx.tanh((y - mx.mean(y, axis=(0, 1, 2))) * gamma)
        return mx.sum(mx.square(z)), z

    (value, z), gradient = mx.value_and_grad(loss)(w)
    return [value, z, gradient]


@pytest.fixture
def arrays():
    keys = mx.random.split(mx.random.key(3), 3)
    return [mx.random.normal(s, key=k) for s, k in zip(((2, 9, 8, 3), (5, 3, 3, 3), (5,)), keys, strict=True)]


def assert_same(got: list[mx.array], want: list[mx.array]) -> None:
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(np.array(g), np.array(w), rtol=1e-4, atol=1e-4)


@pytest.fixture
def broken(monkeypatch):
    """Kernels of tanh give 1% too much."""
    backend = registry.get("cpu")
    load = backend.load

    def load_broken(stretch):
        run = load(stretch)
        kernels = [call.kernel for call in stretch.calls if isinstance(call.kernel, Elementwise)]
        if not any(i.op == "math.tanh" for kernel in kernels for i in kernel.body.instructions):
            return run
        return lambda inputs: [mx.array(np.array(y) * 1.01) for y in run(inputs)]

    monkeypatch.setattr(backend, "load", load_broken)


def test_a_wrong_kernel_goes_back_to_mlx(arrays, broken, tmp_path, capsys):
    fast = convjit.compile(step)
    with pytest.warns(
        convjit.FallbackWarning, match=r"elementwise\.\d+ stays plain MLX: .* its kernel gave .* repro "
    ) as told:
        got = fast(*arrays)
    assert_same(got, step(*arrays))
    explanation = convjit.inspect.explain(fast)
    assert [row.kernel.split()[0] for row in explanation.rows] == ["cpu/direct.c", "cpu/weight_gradient.c"]
    failed = [row for row in explanation.others if row.kernel == "plain MLX"]
    right = [row for row in explanation.others if row.kernel != "plain MLX"]
    assert failed and right and all("sampled outputs wrong here" in row.note for row in failed)
    assert not any("Tanh" in row.ops for row in right)
    assert 'mlx.primitive "Tanh"' in convjit.inspect.ir(fast) and failed[0].name in str(explanation)
    assert (
        f"fuse-elementwise{{across-moves=true without={','.join(row.name.rpartition('.')[2] for row in failed)}}}"
        in fast._last.lowered.pipeline
    )
    folder = str(told[0].message).rpartition("repro ")[2]
    assert main(["repro", folder]) == 1
    assert "scalar ops" in (said := capsys.readouterr().out) and "run on cpu, as this convjit writes it: WRONG" in said


def test_it_is_no_error_and_told_once(arrays, broken, recwarn):
    for _ in range(2):
        assert_same(convjit.compile(step, fallback="error")(*arrays), step(*arrays))
    assert not recwarn.list


def test_a_verdict_is_kept(arrays, monkeypatch):
    proven: list[object] = []
    monkeypatch.setattr(proof, "prove", lambda kernel, *rest: proven.append(kernel) or proof.Verdict())
    for _ in range(2):
        convjit.compile(step)(*arrays)
        monkeypatch.setattr(trust, "_failures", {})  # as in a new process: the verdict is on disk
    assert sum(isinstance(kernel, Elementwise) for kernel in proven) >= 2
    assert len(proven) == len({repr(kernel) for kernel in proven})


def test_every_kernel_is_shown(arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJIT_DUMP", str(tmp_path / "dump"))
    fast = convjit.compile(step, fallback="error")
    fast(*arrays)
    explanation = convjit.inspect.explain(fast)
    names = [row.layer for row in explanation.rows] + [row.name for row in explanation.others]
    assert names[:2] == ["w", "w.weight.grad"] and len(names) > 3
    everything = convjit.inspect.source(fast)
    for name in names:
        text = convjit.inspect.source(fast, name)
        assert text in everything and "const cj_kernel" in text
        assert f'layer "{name}"' in convjit.inspect.ir(fast)
    files = {path.name for path in (tmp_path / "dump" / "001-step" / "sources").iterdir()}
    assert files == {f"{name}.c" for name in names}
    assert "other kernel" in str(explanation) and "Tanh" in str(explanation)


def test_a_model_of_batch_normalisation_trains(monkeypatch):
    """All kernels of a small train step are proven and right."""
    verdicts: list[proof.Verdict] = []
    prove_one = proof.prove
    monkeypatch.setattr(proof, "prove", lambda *a: verdicts.append(prove_one(*a)) or verdicts[-1])
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm(6), nn.GELU(), nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm(4))
    x = mx.random.normal((3, 12, 11, 3), key=mx.random.key(0))
    loss_and_gradients = nn.value_and_grad(model, lambda x: mx.mean(mx.square(model(x)) * mx.sigmoid(model(x))))
    mx.eval(convjit.compile(lambda x: loss_and_gradients(x)[0], fallback="error")(x))
    assert len(verdicts) > 8 and all(v.is_right and v.deviation < 1e-5 for v in verdicts), verdicts
