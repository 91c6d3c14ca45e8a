"""The Metal kernels of weight gradients: their text, run on the host, against float64; then compiled train steps."""

from __future__ import annotations

import random
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from kernels import BACKEND, check, count, simulate
from mlx.utils import tree_flatten
from test_cpu_weight_gradient import CASES, CONVOLUTIONS, kernel_of, kernel_of_mlx_gradient, random_geometry

import convjit
from benchmarks.problems import problems, shrink
from convjit import proof
from convjit.backends.simulator import SimulatorBackend
from convjit.emit.metal.dispatch import Dispatch
from convjit.geometry import Geometry, Window, plain_window
from convjit.kernel import Kernel
from convjit.proof import bundle, repro, trust
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates, choose, smaller
from convjit.schedule.metal.chip import CHIPS, DEFAULT, Chip
from convjit.schedule.metal.weight_gradient import (
    DIRECT,
    MAX_CHAIN,
    TEMPLATE,
    THREADGROUP_BYTES,
    Product,
    Tile,
    direct,
    products,
)

SAME = Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1))


def square(batch: int, size: int, inputs: int, outputs: int, dtype: str = "f32", groups: int = 1) -> Kernel:
    """Of a 3x3 convolution of images that keeps their size."""
    window = replace(SAME, groups=groups)
    return kernel_of(Geometry.of_shapes((batch, size, size, inputs), (outputs, 3, 3, inputs // groups), window), dtype)


@pytest.mark.parametrize("seed", range(24))
def test_random_kernels(seed: int) -> None:
    """By any schedule of matrices that is legal on some chip, and by the direct one."""
    pick = random.Random(seed)
    kernel = kernel_of(random_geometry(np.random.default_rng(seed)), pick.choice(("f32", "f16", "bf16")))
    chip = CHIPS[pick.choice(sorted(CHIPS))]
    check(kernel, pick.choice(products(kernel, chip, 100)), seed)
    check(kernel, direct(kernel, chip), seed)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    check(CASES[name], choose(CASES[name], DEFAULT))


# All of them in all types: make metal-proof.
PROBLEMS = [p for p in problems() if not p.geometry.window.transposed and not p.geometry.window.flip][::3]


@pytest.mark.parametrize("number", range(len(PROBLEMS)), ids=[problem.name for problem in PROBLEMS])
def test_problem(number: int) -> None:
    """Shrunk, by the schedule of the full one."""
    full, dtype = PROBLEMS[number].geometry, ("f32", "f16", "bf16")[number % 3]
    check(kernel_of(shrink(full), dtype), choose(kernel_of(full, dtype), DEFAULT))


@pytest.mark.parametrize(
    ("x", "w", "window"),
    [
        ((1, 1, 1), (1, 1, 1), plain_window(1)),
        ((1, 2, 3), (1, 1, 3), plain_window(1)),
        ((1, 1, 1, 7), (7, 1, 1, 1), plain_window(2, groups=7)),
        ((1, 3, 3, 2), (70, 1, 1, 2), plain_window(2)),
        ((5, 1, 1, 1, 1), (2, 1, 1, 1, 1), plain_window(3)),
    ],
)
def test_tiny_arrays(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> None:
    """Those of fewer than 8 elements come in another address space."""
    kernel = kernel_of(Geometry.of_shapes(x, w, window), "bf16")
    for schedule in candidates(kernel, DEFAULT):
        check(kernel, schedule)


@pytest.mark.parametrize("batch", [1, 2, 5, 11])
def test_a_schedule_serves_batches_that_it_was_not_made_for(batch: int) -> None:
    """Some parts may be left without a pixel."""
    made_for = square(6, 9, 16, 24)
    matrices = next(s for s in products(made_for, DEFAULT, 100) if s.number("parts") > 2)
    for schedule in (matrices, direct(made_for, DEFAULT)):
        check(square(batch, 9, 16, 24), schedule)


@pytest.mark.parametrize("make", [choose, direct])
def test_text_does_not_depend_on_the_batch(make) -> None:
    schedule = make(square(6, 9, 16, 24), DEFAULT)
    texts = {BACKEND.source(square(batch, 9, 16, 24), schedule) for batch in (1, 2, 7)}
    assert len(texts) == 1
    assert len({BACKEND.identity(square(batch, 9, 16, 24), schedule) for batch in (1, 7)}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_chains_of_parts_are_added_up(seed: int) -> None:
    """Whatever their number: those that are left without a pixel add nothing."""
    pick = random.Random(seed)
    kernel = kernel_of(random_geometry(np.random.default_rng(100 + seed)), pick.choice(("f32", "f16")))
    parts, chains = (1, 2, 3)[kernel.dtype != "f32" :][seed % 2], pick.choice((2, 3, 7))
    check(kernel, changed(products(kernel, DEFAULT)[0], parts=parts, chains=chains), seed)


def changed(schedule: Schedule, **choices: int) -> Schedule:
    return Schedule(schedule.template, tuple((n, choices.get(n, value)) for n, value in schedule.choices))


@pytest.mark.parametrize("template", [TEMPLATE, DIRECT])
def test_long_sums_are_exact(template: str) -> None:
    """20,000 terms of one sign in one part: in one chain, they would be five times as wrong."""
    kernel = kernel_of(Geometry.of_shapes((4, 5000, 2), (2, 1, 2), plain_window(1)))
    schedules = [*products(kernel, DEFAULT, 100), changed(direct(kernel, DEFAULT), parts=1)]
    schedule = next(s for s in schedules if s.template == template and s.number("parts") == 1)
    rng = np.random.default_rng(0)
    x, dy = (rng.random(shape, np.float32) for shape in kernel.operand_shapes)
    (got,) = simulate(kernel, schedule, mx.array(x), mx.array(dy), [])
    exact = dy.reshape(-1, 2).T.astype(np.float64) @ x.reshape(-1, 2)
    assert np.abs(got[:, 0] / exact - 1).max() < 7e-7


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_no_chain_is_longer_than_allowed_and_none_adds_up_halves(chip: Chip) -> None:
    for kernel in (square(32, 112, 3, 64), square(16, 64, 512, 512, "f16"), CASES["long rows"]):
        for schedule in products(kernel, chip, 100):
            parts, chains = schedule.number("parts"), schedule.number("chains")
            assert kernel.terms <= MAX_CHAIN * parts * chains
            assert chains == 1 or parts > 1 or kernel.dtype == "f32"


@pytest.mark.parametrize("make", [choose, direct])
def test_what_is_not_finite_stays_with_its_channels(make) -> None:
    """Rows and columns that only fill up a matrix, and pixels that fill up a step, must not spread it."""
    kernel = kernel_of(Geometry.of_shapes((1, 5, 7, 9), (11, 1, 1, 9), plain_window(2)))
    x, dy = (np.ones(shape, np.float32) for shape in kernel.operand_shapes)
    x[0, 2, 3, 3], dy[0, 4, 6, 10] = np.inf, np.nan
    (got,) = simulate(kernel, make(kernel, DEFAULT), mx.array(x), mx.array(dy), [])
    spoiled = np.argwhere(~np.isfinite(got))
    assert all(o == 10 or c == 3 for o, _, _, c in spoiled) and len(spoiled) == 11 + 9 - 1


@pytest.mark.parametrize("make", [choose, direct])
def test_a_proof_tells_right_from_wrong(make) -> None:
    kernel = square(9, 8, 12, 20)
    schedule = make(kernel, DEFAULT)
    verdict = proof.prove(kernel, schedule, proof.runner(BACKEND, kernel, schedule))
    assert verdict.is_right and verdict.checked > 100 and verdict.deviation < 1e-5

    def without_an_image(arrays: list[mx.array]) -> list[mx.array]:
        x, dy = arrays
        return list(proof.runner(BACKEND, kernel, schedule)([x, mx.concatenate([dy[:-1], mx.zeros_like(dy[:1])])]))

    assert proof.prove(kernel, schedule, without_an_image).wrong > 100


def test_a_proof_is_of_few_images_and_of_two_steps_a_part() -> None:
    kernel = square(500, 16, 16, 16)
    for schedule in candidates(kernel, DEFAULT):
        small = proof.for_proof(kernel, schedule)
        pixels = small.geometry.batch * 256
        assert small.geometry.batch < 500
        assert pixels >= 2 * schedule.number("parts") * schedule.number("pixels") * dict(schedule.choices).get(
            "chains", 1
        )


def test_smaller_schedules_end_at_the_direct_one() -> None:
    kernel = square(8, 28, 64, 64)
    schedule: Schedule | None = choose(kernel, DEFAULT)
    seen: list[Schedule] = []
    while schedule is not None:
        seen.append(schedule)
        schedule = smaller(kernel, schedule, DEFAULT)
    assert 3 <= len(seen) == len(set(seen))
    assert [s.template for s in seen] == [TEMPLATE] * (len(seen) - 1) + [DIRECT]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_schedules_obey_the_limits_on_every_chip(chip: Chip) -> None:
    """Threadgroup memory, threads, enough threadgroups, and little padding in large matrices."""
    for kernel in (square(8, 56, 64, 64), square(8, 14, 256, 256, "f16"), square(32, 8, 64, 64, "bf16")):
        for schedule in products(kernel, chip, 100):
            product = Product(kernel, Tile.of(schedule))
            assert 64 <= product.tile.threads <= 256
            assert product.threadgroup_bytes <= THREADGROUP_BYTES
        chosen = Product(kernel, Tile.of(choose(kernel, chip)))
        assert kernel.geometry.flops / 2 >= 0.9 * chosen.issued
        assert chosen.threadgroups >= 3 * chip.cores


@pytest.mark.parametrize("kernel", [square(2, 9, 16, 24), square(3, 5, 12, 16, "f16", 4)])
def test_the_model_counts_what_is_multiplied(kernel: Kernel) -> None:
    for schedule in products(kernel, DEFAULT, 3):
        first, *_ = count(kernel, schedule)
        assert first.mma_operations * 512 == Product(kernel, Tile.of(schedule)).issued


def test_few_outputs_of_a_group_are_no_matrix() -> None:
    assert choose(square(2, 9, 40, 40, groups=40), DEFAULT).template == DIRECT
    assert choose(square(2, 9, 40, 40, groups=10), DEFAULT).template == TEMPLATE
    assert choose(square(2, 9, 40, 3), DEFAULT).template == TEMPLATE


def test_indices_are_64_bit_only_where_sizes_need_it() -> None:
    def source(width: int) -> str:
        kernel = kernel_of(Geometry.of_shapes((1, width, 8), (8, 3, 8), plain_window(1)))
        return BACKEND.source(kernel, choose(kernel, DEFAULT))

    assert "const int in_w" in source(1 << 20)
    assert "const long in_w" in source(1 << 28)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_mlx_gradient_is_compiled(name: str) -> None:
    template = DIRECT if name == "2D depthwise" or "grouped" in name else TEMPLATE
    assert kernel_of_mlx_gradient(name, "simulator") == template


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm(8)
        self.strided = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.transposed = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.head = nn.Linear(6, 4)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.silu(self.strided(nn.relu(self.norm(self.first(x)))))
        return self.head(nn.relu(self.transposed(nn.relu(self.depthwise(x)))).mean((1, 2)))


def test_a_train_step_runs_all_its_convolutions_on_kernels() -> None:
    """Forward, by the input and by the weight; three steps are those of plain MLX."""
    x, y = mx.random.normal((2, 8, 8, 3), key=mx.random.key(0)), mx.array([0, 3])

    def train(compiled: bool):
        mx.random.seed(1)
        net, optimizer = Net(), optim.SGD(0.1, momentum=0.9)
        loss_and_gradients = nn.value_and_grad(net, lambda x, y: nn.losses.cross_entropy(net(x), y, reduction="mean"))

        def step(x: mx.array, y: mx.array) -> mx.array:
            value, gradients = loss_and_gradients(x, y)
            optimizer.update(net, gradients)
            return value

        if compiled:
            step = convjit.compile(step, backend="simulator", fallback="error")
        return [step(x, y).item() for _ in range(3)], dict(tree_flatten(net.parameters())), step

    values, weights, step = train(compiled=True)
    expected_values, expected, _ = train(compiled=False)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    for name, weight in weights.items():
        np.testing.assert_allclose(np.array(weight), np.array(expected[name]), rtol=1e-4, atol=1e-6, err_msg=name)
    rows = convjit.inspect.explain(step).rows
    assert all(row.kernel.startswith("metal/") for row in rows)
    gradients = [row.layer for row in rows if row.kernel.startswith("metal/weight_gradient")]
    assert len(gradients) == 4
    assert all("// Weight gradient, " in convjit.inspect.source(step, layer) for layer in gradients)


@pytest.fixture
def new_machine(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels have to prove themselves, and no verdict of an earlier run counts."""
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("CONVJIT_TUNE", raising=False)
    monkeypatch.setattr(trust, "_failures", {})
    monkeypatch.setattr(SimulatorBackend, "needs_proof", True)


@pytest.mark.usefixtures("new_machine")
def test_the_direct_kernel_takes_the_place_of_what_fails_its_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatches = SimulatorBackend.dispatches

    def with_a_wrong_offset(self: SimulatorBackend, kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
        first, *others = dispatches(self, kernel, schedule)
        if schedule.template == TEMPLATE:
            assert "rows[i * 8]" in first.text.body
            body = first.text.body.replace("rows[i * 8]", "rows[i * 8 + 1]")
            first = replace(first, text=replace(first.text, body=body, name=f"{first.text.name}_wrong"))
        return first, *others

    monkeypatch.setattr(SimulatorBackend, "dispatches", with_a_wrong_offset)
    x, w, dy = (mx.random.normal(s, key=mx.random.key(0)) for s in [(2, 6, 6, 8), (16, 3, 3, 8), (2, 4, 4, 16)])

    def gradient(x: mx.array, w: mx.array, dy: mx.array) -> mx.array:
        return mx.vjp(lambda w: [mx.conv2d(x, w)], [w], [dy])[1][0]

    fast = convjit.compile(gradient, backend="simulator", fallback="quiet")
    assert mx.allclose(fast(x, w, dy), gradient(x, w, dy), rtol=1e-4, atol=1e-4)
    (row,) = convjit.inspect.explain(fast).rows
    assert row.kernel.startswith(DIRECT) and row.note.startswith(f"smaller schedule, because of {TEMPLATE}")


@pytest.mark.usefixtures("new_machine")
@pytest.mark.parametrize("make", [choose, direct])
def test_a_bundle_is_run_again(make) -> None:
    kernel = square(3, 6, 8, 12, "f16")
    folder = bundle.write(BACKEND, "conv.weight.grad", kernel, make(kernel, DEFAULT), proof.Verdict(error="no reason"))
    assert folder is not None
    again = repro.replay(bundle.read(folder))
    assert again.verdict.is_right and again.same_text and again.findings == ()


@pytest.mark.usefixtures("new_machine")
def test_tuning_measures_its_schedules() -> None:
    def gradient(x: mx.array, w: mx.array, dy: mx.array) -> mx.array:
        return mx.vjp(lambda w: [mx.conv2d(x, w)], [w], [dy])[1][0]

    fast = convjit.compile(gradient, backend="simulator", fallback="error")
    geometry = Geometry.of_shapes((1, 5, 5, 4), (8, 3, 3, 4), plain_window(2))
    (row,) = convjit.tune(fast, *map(mx.ones, (geometry.in_shape, geometry.weight_shape, geometry.out_shape))).rows
    assert row.ways == len(candidates(kernel_of(geometry), DEFAULT)) + 1  # MLX's own
