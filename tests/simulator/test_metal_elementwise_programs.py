"""Programs whose elementwise ops run on Metal kernels, on the simulator: against plain MLX; proofs, as on a device."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from elementwise_kernels import total
from mlx.utils import tree_flatten

import convjit
from convjit import proof
from convjit.__main__ import main
from convjit.backends import registry
from convjit.backends.simulator import SimulatorBackend
from convjit.emit.metal.dispatch import Dispatch
from convjit.inspect import PLAIN
from convjit.kernel import Elementwise
from convjit.proof import trust
from convjit.reporting.report import Explanation
from convjit.schedule.metal.elementwise import Tile


def arrays_of_block(dtype: mx.Dtype = mx.float32) -> list[mx.array]:
    keys = mx.random.split(mx.random.key(4), 4)
    shapes = ((2, 7, 5, 6), (6, 3, 3, 6), (6,), (6,))
    return [mx.random.normal(s, key=k).astype(dtype) for s, k in zip(shapes, keys, strict=True)]


def block(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
    """Batch normalisation of a convolution, ReLU, and a residual."""
    y = mx.conv2d(x, w, padding=1)
    mean, variance = mx.mean(y, axis=(0, 1, 2)), mx.var(y, axis=(0, 1, 2))
    return nn.relu((y - mean) * mx.rsqrt(variance + 1e-5) * gamma + beta) + x


def gradients(x: mx.array, w: mx.array, gamma: mx.array, beta: mx.array) -> list[mx.array]:
    """Of all but the weights of the convolutions."""

    def loss(x: mx.array, gamma: mx.array, beta: mx.array) -> mx.array:
        return mx.sum(mx.square(block(block(x, w, gamma, beta), w, gamma, beta)))

    return list(mx.grad(loss, argnums=[0, 1, 2])(x, gamma, beta))


def assert_same(got: Sequence[mx.array], want: Sequence[mx.array], tolerance: float) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        one, other = (np.array(v.astype(mx.float32)) for v in (one, other))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (1 + np.abs(other).max()))


def kernels_of(fast: object) -> list[str]:
    """The ops of each elementwise kernel; all must be Metal's."""
    rows = convjit.inspect.explain(fast).others
    assert all(row.kernel.startswith("metal/elementwise.metal ") for row in rows), rows
    return [row.ops for row in rows]


def test_batch_normalisation_and_its_gradient() -> None:
    arrays = arrays_of_block()
    fast = convjit.compile(gradients, backend="simulator", fallback="error")
    assert_same(fast(*arrays), gradients(*arrays), 1e-4)
    assert len(kernels_of(fast)) > 3
    assert any("2 sums" in row.shape for row in convjit.inspect.explain(fast).others)
    assert "conv.elementwise" in convjit.inspect.ir(fast)


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.float16, 0.01), (mx.bfloat16, 0.06)], ids=str)
def test_half_types(dtype: mx.Dtype, tolerance: float) -> None:
    """Against float32: MLX rounds behind every op."""
    arrays = arrays_of_block(dtype)
    fast = convjit.compile(lambda *a: [block(*a)], backend="simulator", fallback="error")
    want = block(*(a.astype(mx.float32) for a in arrays))
    assert_same([y.astype(mx.float32) for y in fast(*arrays)], [want], tolerance)
    assert kernels_of(fast)


def test_a_train_step_with_its_optimizer() -> None:
    """Everything but the loss, and what has one number."""

    def train(compiled: bool) -> tuple[object, list[mx.array]]:
        mx.random.seed(3)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2))
        optimizer = optim.SGD(0.1, momentum=0.9)
        mx.eval(model.parameters())
        loss_and_gradients = nn.value_and_grad(model, lambda x: mx.mean(mx.square(model(x))))

        def step(x: mx.array) -> mx.array:
            value, found = loss_and_gradients(x)
            optimizer.update(model, found)
            return value

        run = convjit.compile(step, backend="simulator", fallback="error") if compiled else step
        values = [run(mx.random.normal((3, 12, 11, 3), key=mx.random.key(n))) for n in range(3)]
        return run, [*values, *(v for _, v in tree_flatten(model.parameters()))]

    fast, got = train(compiled=True)
    assert_same(got, train(compiled=False)[1], 1e-4)
    assert len(kernels_of(fast)) > 4


def test_other_types_stay_with_mlx() -> None:
    """Masks and counts of integers."""

    def function(x: mx.array, w: mx.array, mask: mx.array, counts: mx.array) -> list[mx.array]:
        y = mx.conv2d(x, w, padding=1)
        z = mx.where(mask, mx.tanh(y - mx.mean(y, axis=(0, 1, 2))), 0.5)
        return [mx.conv2d(z * counts.astype(mx.float32), w, padding=1), counts + 1, y > 0, mx.sum(counts, axis=0)]

    x, w, *_ = arrays_of_block()
    rng = np.random.default_rng(0)
    mask, counts = mx.array(rng.random(x.shape) < 0.5), mx.array(rng.integers(0, 9, x.shape, np.int32))
    fast = convjit.compile(function, backend="simulator", fallback="error")
    assert_same(fast(x, w, mask, counts), function(x, w, mask, counts), 1e-4)
    assert kernels_of(fast)


def test_more_arrays_than_a_kernel_takes() -> None:
    def function(x: mx.array, w: mx.array, *others: mx.array) -> list[mx.array]:
        y = nn.relu(mx.conv2d(x, w, padding=1))
        total = mx.tanh(mx.cumsum(y, axis=0))
        for other in others:
            total = total * 0.5 + other
        return [mx.conv2d(total, w, padding=1)]

    x, w, *_ = arrays_of_block()
    arrays = [x, w, *(mx.random.normal(x.shape, key=mx.random.key(n)) for n in range(30))]
    fast = convjit.compile(function, backend="simulator")
    with pytest.warns(convjit.FallbackWarning, match=r"elementwise\.\d+ stays plain MLX: needs 3\d buffers; a Metal"):
        got = fast(*arrays)
    assert_same(got, function(*arrays), 1e-5)
    assert [row.kernel for row in convjit.inspect.explain(fast).others] == [PLAIN]


# ---- Proofs, as on a device.


Edit = Callable[[Dispatch], Dispatch]


class ProvingBackend(SimulatorBackend):
    """As the Metal backend on a device; the texts of elementwise kernels have passed through a function."""

    needs_proof = True

    def __init__(self, edit: Edit):
        self.edit = edit

    def dispatches(self, kernel, schedule):
        whole = super().dispatches(kernel, schedule)
        return tuple(map(self.edit, whole)) if isinstance(kernel, Elementwise) else whole


def replaced(old: str, new: str) -> Edit:
    def edit(one: Dispatch) -> Dispatch:
        return replace(one, text=replace(one.text, body=one.text.body.replace(old, new)))

    return edit


@pytest.fixture
def proven(tmp_path, monkeypatch) -> Callable[[Edit], Explanation]:
    """Compiles a program for a backend with a fault; its results are right in any case."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "_failures", {})
    monkeypatch.setattr(trust, "_keys", {})

    def run(edit: Edit) -> Explanation:
        backend = ProvingBackend(edit)
        monkeypatch.setattr(registry, "get", lambda name: backend)
        arrays = arrays_of_block()
        fast = convjit.compile(lambda *a: [block(*a)], backend="simulator")
        assert_same(fast(*arrays), [block(*arrays)], 1e-4)
        return convjit.inspect.explain(fast)

    return run


@pytest.mark.filterwarnings("error")
def test_right_kernels_pass_their_proof(proven) -> None:
    explanation = proven(lambda one: one)
    assert len(explanation.others) > 3
    assert all(row.kernel.startswith("metal/elementwise.metal ") and not row.note for row in explanation.others)


def test_a_simpler_kernel_stands_in_for_a_wrong_one(proven) -> None:
    with pytest.warns(convjit.FallbackWarning, match=r"elementwise\.\d+ has a smaller schedule, because of metal/elem"):
        explanation = proven(replaced("x0[at + j]", "x0[at]"))
    assert all(row.kernel.startswith("metal/elementwise.metal ") for row in explanation.others)
    others = [row for row in explanation.others if row.note]
    assert others and all("vector=1" in row.kernel and "sampled outputs wrong here" in row.note for row in others)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (" - e1", " + e1", "Subtract"),
        ("sum += partial[", "sum += 1.01f * partial[", "Reduce"),
        ("at < end;", "at < end - 4;", "Sqrt"),
    ],
)
def test_a_wrong_kernel_goes_back_to_mlx(proven, old: str, new: str, lost: str, capsys) -> None:
    with pytest.warns(convjit.FallbackWarning, match="stays plain MLX: .* its kernel gave .* repro ") as told:
        explanation = proven(replaced(old, new))
    failed = [row for row in explanation.others if row.kernel == PLAIN]
    right = [row for row in explanation.others if row.kernel != PLAIN]
    assert failed and right and not any(lost in row.ops for row in right)
    folder = re.search(r"repro ([^\s;)]+)", str(told[0].message))
    assert folder is not None and main(["repro", folder[1]]) == 1
    said = capsys.readouterr().out
    assert "metal/elementwise.metal" in said and "run on simulator: WRONG" in said


MUTATIONS = {
    "a part that takes the place of others": ("sum += partial[", "sum = partial["),
    "parts behind those of the first round": ("part < parts; part", "part < metal::min(parts, 32); part"),
    "rows of the last threadgroup": ("int(rows)", "int(rows) / 128 * 128"),
    "a sum that leaves out a row": ("sums[j] +=", "sums[j] += row == 129 ? 0.0f :"),
    "a step of the tree": ("stride > 0", "stride > 1"),
}


@pytest.mark.parametrize("mutation", ["none", *MUTATIONS])
def test_a_proof_sees_every_way_in_which_sums_are_made(mutation: str) -> None:
    """Also where many threadgroups have parts of them: by one threadgroup more than threads add these up."""
    kernel = total((20_001, 1, 4))
    schedule = Tile(4, 1, 128, 1).schedule(is_flat=False, has_sums=True)
    small = proof.for_proof(kernel, schedule)
    assert small.operand_shapes == ((33 * 128 + 20_001 % 128, 4),)
    backend = ProvingBackend(replaced(*MUTATIONS.get(mutation, ("", ""))))
    verdict = proof.prove(small, schedule, proof.runner(backend, small, schedule))
    assert verdict.is_right == (mutation == "none") and not verdict.error, str(verdict)
