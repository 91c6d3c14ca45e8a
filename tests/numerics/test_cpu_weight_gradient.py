"""The CPU kernels of weight gradients, against the definition in float64; then `mx.grad` inside compiled functions."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import mlx.core as mx
import numpy as np
import pytest
from harness import Array, alone, from_storage, schedule_of, to_storage
from reference import round_to

import convjit
from convjit import proof
from convjit.backends.cpu import CpuBackend
from convjit.geometry import Geometry, GeometryError, Window, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.proof import oracle
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.weight_gradient import candidates

ROUNDING = {"f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def weight_gradient(geometry: Geometry, x: Array, dy: Array) -> Array:
    """dw[o, k, c]: the sum over images and outputs y of dy[y, o] * x'[y * stride + k * dilation, c], x' padded."""
    window = geometry.window
    for axis, (lo, hi) in enumerate(zip(window.pad_lo, window.pad_hi, strict=True), 1):
        x = np.take(x, range(max(-lo, 0), x.shape[axis] - max(-hi, 0)), axis)
        x = np.pad(x, [(max(lo, 0), max(hi, 0)) if a == axis else (0, 0) for a in range(x.ndim)])
    dw = np.zeros(geometry.weight_shape)
    groups = window.groups
    dy_of_groups = np.split(dy.reshape(-1, geometry.out_channels), groups, -1)
    for tap in np.ndindex(*geometry.kernel):
        reach = (
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip(tap, window.kernel_dilation, geometry.out_size, window.strides, strict=True)
        )
        seen = x[(slice(None), *reach)].reshape(-1, geometry.in_channels)
        products = [g.T @ s for g, s in zip(dy_of_groups, np.split(seen, groups, -1), strict=True)]
        dw[(slice(None), *tap)] = np.concatenate(products)
    return dw


def kernel_of(geometry: Geometry, dtype: str = "f32") -> Kernel:
    return Kernel(geometry, dtype, (), identity_epilogue(dtype), (dtype,), operation="weight_gradient")


def random_geometry(rng: np.random.Generator) -> Geometry:
    while True:
        rank = int(rng.integers(1, 4))

        def draw(*values: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(int(v) for v in rng.choice(values, rank))

        groups, inputs, outputs = int(rng.choice([1, 1, 1, 2, 4])), *map(int, rng.choice([1, 2, 3, 5, 8, 17, 40], 2))
        if rng.random() < 0.25:
            groups, inputs, outputs = int(rng.choice([3, 16, 21, 50])), 1, 1
        padding = draw(-1, 0, 0, 1, 2), draw(-1, 0, 1, 2)
        window = Window(draw(1, 1, 2, 3), *padding, draw(1, 1, 2), (1,) * rank, groups)
        x = (int(rng.integers(1, 4)), *draw(1, 4, 7, 9, 20), inputs * groups)
        try:
            return Geometry.of_shapes(x, (outputs * groups, *draw(1, 2, 3, 5), inputs), window)
        except GeometryError:
            continue


def random_schedule(rng: np.random.Generator, kernel: Kernel, machine: Machine) -> Schedule:
    """Any that tuning would try, for the machine's caches or for tiny ones."""
    if rng.random() < 0.5:
        machine = replace(machine, l1_bytes=2000, l2_bytes=4000)
    choices = candidates(kernel.any_batch(), machine)
    return choices[rng.integers(len(choices))]


def numbers_of(kernel: Kernel, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    first, second = (round_to(rng.standard_normal(shape), kernel.dtype) for shape in kernel.operand_shapes)
    return first, second


def check(backend: CpuBackend, kernel: Kernel, schedule: Schedule, x: Array, dy: Array) -> None:
    """Every element is as near as its rounding and chains of single precision allow."""
    (stored,) = alone(backend, kernel, schedule)([to_storage(x, kernel.dtype), to_storage(dy, kernel.dtype)])
    got, exact = from_storage(stored, kernel.dtype), weight_gradient(kernel.geometry, x, dy)
    magnitude = weight_gradient(kernel.geometry, np.abs(x), np.abs(dy))
    assert got.shape == exact.shape
    bound = 3e-6 * magnitude + ROUNDING[kernel.dtype] * np.abs(exact) + 1e-7
    assert np.all(np.abs(got - exact) <= bound), (kernel, schedule)


CASES = {
    "ResNet-20, first": kernel_of(Geometry.of_shapes((3, 32, 32, 3), (16, 3, 3, 3), plain_window(2))),
    "ResNet-20, narrowing": kernel_of(
        Geometry.of_shapes((5, 32, 32, 16), (32, 3, 3, 16), Window((2, 2), (1, 1), (0, 0), (1, 1), (1, 1)))
    ),
    "many images in a block": kernel_of(
        Geometry.of_shapes((37, 4, 5, 33), (35, 3, 3, 33), Window((1, 1), (1, 1), (1, 1), (1, 1), (1, 1)))
    ),
    "long rows": kernel_of(Geometry.of_shapes((2, 1100, 5), (7, 4, 5), Window((1,), (3,), (0,), (1,), (1,)))),
    "pointwise": kernel_of(Geometry.of_shapes((2, 23, 29, 20), (50, 1, 1, 20), plain_window(2))),
    "depthwise": kernel_of(
        Geometry.of_shapes((2, 19, 21, 40), (40, 5, 5, 1), Window((1, 1), (2, 2), (2, 2), (1, 1), (1, 1), 40))
    ),
}


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels at once, in parallel."""
    backend.compile([(k, schedule_of(backend, k)) for k in CASES.values()], lambda done, total: None)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("guarded_memory")
def test_case(backend: CpuBackend, name: str):
    kernel = CASES[name]
    check(backend, kernel, schedule_of(backend, kernel), *numbers_of(kernel, 0))


@pytest.mark.usefixtures("guarded_memory")
def test_long_sums_are_exact(backend: CpuBackend):
    """70,000 terms of one sign: in one chain of single precision, they would be 100 times as wrong."""
    kernel = kernel_of(Geometry.of_shapes((70, 1000, 2), (2, 1, 2), plain_window(1)))
    x, dy = (np.abs(numbers) for numbers in numbers_of(kernel, 0))
    (got,) = alone(backend, kernel, schedule_of(backend, kernel))([to_storage(x, "f32"), to_storage(dy, "f32")])
    exact = weight_gradient(kernel.geometry, x, dy)
    assert np.abs(got / exact - 1).max() < 5e-7


@pytest.mark.usefixtures("guarded_memory")
def test_what_is_not_finite_stays_with_its_channels(backend: CpuBackend):
    kernel = CASES["pointwise"]
    x, dy = numbers_of(kernel, 0)
    x[1, 4, 5, 3], dy[0, 7, 7, 41] = np.inf, np.nan
    (got,) = alone(backend, kernel, schedule_of(backend, kernel))([to_storage(x, "f32"), to_storage(dy, "f32")])
    spoiled = np.argwhere(~np.isfinite(got))
    assert all(o == 41 or c == 3 for o, _, _, c in spoiled) and len(spoiled) == 50 + 20 - 1


def test_threads_do_not_change_it(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch):
    kernel = CASES["ResNet-20, narrowing"]
    x, dy = (mx.array(a.astype(np.float32)) for a in numbers_of(kernel, 0))
    run = alone(backend, kernel, schedule_of(backend, kernel))
    (together,) = run([x, dy])
    monkeypatch.setattr(run, "_threads", 1)
    (by_itself,) = run([x, dy])
    assert mx.array_equal(together, by_itself)


@pytest.mark.parametrize("name", ["ResNet-20, narrowing", "depthwise", "long rows"])
def test_a_proof_tells_right_from_wrong(backend: CpuBackend, name: str):
    kernel = CASES[name]
    schedule = schedule_of(backend, kernel)
    verdict = proof.prove(kernel, schedule, proof.runner(backend, kernel, schedule))
    assert verdict.is_right and verdict.checked > 100 and verdict.deviation < 1e-5

    def without_an_image(arrays: list[mx.array]) -> list[mx.array]:
        x, dy = arrays
        return list(proof.runner(backend, kernel, schedule)([x, mx.concatenate([dy[:-1], mx.zeros_like(dy[:1])])]))

    assert proof.prove(kernel, schedule, without_an_image).wrong > 100


def test_the_oracle_is_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(20):
        kernel = kernel_of(random_geometry(rng))
        x, dy = numbers_of(kernel, 0)
        everywhere = tuple(axis.ravel() for axis in np.indices(kernel.result_shape))
        (bounds,) = oracle.bounds(kernel, [x.astype(np.float32), dy.astype(np.float32)], everywhere)
        exact = weight_gradient(kernel.geometry, x.astype(np.float32), dy.astype(np.float32)).ravel()
        np.testing.assert_allclose(bounds.exact, exact, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = {
    "1D": ((3, 17, 5), (7, 4, 5), {"padding": 2, "stride": 3}),
    "1D dilated": ((3, 17, 5), (7, 3, 5), {"dilation": 2}),
    "pointwise": ((2, 5, 6, 8), (3, 1, 1, 8), {}),
    "strided pointwise": ((2, 5, 6, 8), (3, 1, 1, 8), {"stride": 2}),
    "2D": ((2, 9, 8, 3), (5, 3, 2, 3), {"stride": (2, 1), "padding": (0, 1)}),
    "2D dilated": ((2, 9, 8, 3), (5, 3, 2, 3), {"dilation": (1, 2), "padding": 2}),
    "2D grouped": ((2, 9, 8, 6), (4, 3, 3, 3), {"groups": 2, "padding": 1, "stride": 2}),
    "2D depthwise": ((2, 9, 8, 6), (6, 3, 3, 1), {"groups": 6, "padding": 1}),
    "3D": ((2, 4, 5, 6, 3), (4, 3, 2, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
    "1D transposed": ((2, 7, 4), (6, 4, 4), {"transposed": True, "stride": 3, "padding": 1}),
    "2D transposed": ((2, 5, 6, 4), (6, 3, 3, 4), {"transposed": True, "stride": 2, "padding": 1}),
    "2D transposed, pointwise": ((2, 5, 6, 4), (6, 1, 1, 4), {"transposed": True, "stride": 2}),
    "2D transposed, grouped": ((2, 5, 6, 4), (6, 3, 3, 2), {"transposed": True, "groups": 2, "dilation": 2}),
    "3D transposed": ((1, 3, 4, 3, 2), (3, 2, 2, 3, 2), {"transposed": True, "stride": 2}),
}
DTYPES = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 3e-2}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_mlx_gradient_is_compiled(name: str):
    assert kernel_of_mlx_gradient(name, "cpu") == "cpu/weight_gradient.c"


def kernel_of_mlx_gradient(name: str, backend: str) -> str:
    """The gradient that MLX traces runs on one kernel, and is MLX's own; gives the kernel's template."""
    x_shape, w_shape, arguments = CONVOLUTIONS[name]
    rank, arguments = len(x_shape) - 2, dict(arguments)
    convolve = getattr(mx, f"{'conv_transpose' if arguments.pop('transposed', False) else 'conv'}{rank}d")
    dtype = list(DTYPES)[len(name) % 3]
    x, w = (mx.random.normal(s, key=mx.random.key(n)).astype(dtype) for n, s in enumerate([x_shape, w_shape]))
    y = convolve(x, w, **arguments)
    dy = mx.random.normal(y.shape, key=mx.random.key(2)).astype(dtype)

    def gradient(x: mx.array, w: mx.array, dy: mx.array) -> mx.array:
        return mx.vjp(lambda w: [convolve(x, w, **arguments)], [w], [dy])[1][0]

    fast = convjit.compile(gradient, fallback="error", backend=backend)
    got, expected = fast(x, w, dy), gradient(*(a.astype(mx.float32) for a in (x, w, dy)))
    assert got.dtype == dtype
    scale = mx.abs(expected).max().item()
    assert mx.abs(got.astype(mx.float32) - expected).max().item() <= DTYPES[dtype] * scale
    (row,) = convjit.inspect.explain(fast).rows
    assert row.layer == "conv.weight.grad"
    again = gradient(x, w, dy * 2).astype(mx.float32)
    assert mx.abs(fast(x, w, dy * 2).astype(mx.float32) - again).max().item() <= 4 * DTYPES[dtype] * scale
    return row.kernel.split()[0]


def test_a_gradient_of_many_layers():
    """Weight gradients and forward convolutions of one function, named after their layers."""
    w = {"a": mx.random.normal((8, 3, 3, 3)), "b": mx.random.normal((8, 3, 3, 8)), "c": mx.random.normal((4, 1, 1, 8))}
    x = mx.random.normal((2, 8, 8, 3))

    def loss(w: dict[str, mx.array], x: mx.array) -> mx.array:
        y = mx.maximum(mx.conv2d(x, w["a"], padding=1), 0)
        y = y + mx.maximum(mx.conv2d(y, w["b"], padding=1), 0)
        return mx.square(mx.conv2d(y, w["c"], stride=2)).mean()

    step = mx.value_and_grad(loss)
    fast = convjit.compile(step, fallback="error", backend="cpu")
    (value, gradients), (expected, expected_gradients) = fast(w, x), step(w, x)
    assert abs(value.item() - expected.item()) <= 1e-5 * abs(expected.item())
    for name in w:
        assert mx.allclose(gradients[name], expected_gradients[name], rtol=1e-4, atol=1e-4 * prod(w[name].shape) ** 0.5)
    kernels = [(row.layer, row.kernel.split()[0]) for row in convjit.inspect.explain(fast).rows]
    assert sum(kernel == "cpu/weight_gradient.c" for _, kernel in kernels) == 3
    assert len({layer for layer, _ in kernels}) == len(kernels)


def test_a_backend_that_refuses_says_so(monkeypatch: pytest.MonkeyPatch):
    """What MLX traced stays in its place."""
    schedule = CpuBackend.schedule

    def refuse(self: CpuBackend, kernel: Kernel) -> Schedule | str:
        return "no gradients here" if kernel.operation == "weight_gradient" else schedule(self, kernel)

    monkeypatch.setattr(CpuBackend, "schedule", refuse)
    x, w, dy = (mx.random.normal(s) for s in [(1, 4, 4, 2), (2, 3, 3, 2), (1, 2, 2, 2)])

    def gradient(x: mx.array, w: mx.array, dy: mx.array) -> tuple[mx.array, mx.array]:
        return mx.conv2d(x, w), mx.vjp(lambda w: [mx.conv2d(x, w)], [w], [dy])[1][0]

    fast = convjit.compile(gradient, fallback="quiet", backend="cpu")
    for got, expected in zip(fast(x, w, dy), gradient(x, w, dy), strict=True):
        assert mx.allclose(got, expected, atol=1e-5)
    rows = {row.layer: row for row in convjit.inspect.explain(fast).rows}
    assert rows["w"].kernel.startswith("cpu/")
    plain = rows["w.weight.grad"]
    assert plain.kernel == "plain MLX" and plain.note == "no gradients here"
    assert plain.convolution == "1x4x4x2 -> 2x2x2, k 3x3"
