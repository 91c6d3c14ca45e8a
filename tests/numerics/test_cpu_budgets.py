"""What kernels of real layers may cost beside their time: text, packed weights, memory."""

from __future__ import annotations

from math import prod

import pytest

from benchmarks.layers.network import geometry_of
from benchmarks.layers.ours import kernel_of, memory_bytes
from benchmarks.problems import Problem, experiments, problems
from convjit.backends.cpu import CpuBackend
from convjit.emit.cpu import packing
from convjit.geometry import Geometry, Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule

TEXT_BYTES = 200_000
MEMORY_BYTES = 8 << 20
PACKED_RATIO, PACKED_RATIO_OF_NETWORK = 4, 2
SMALL_WEIGHT = 512 << 10
"""Bytes of a packed weight that may be larger than that: of few channels, which fill up a vector."""

PROBLEMS = {problem.name: problem for problem in (*problems(), *experiments())}


def kernels(problem: Problem) -> list[Kernel]:
    return [kernel_of(geometry_of(problem), dtype) for dtype in ("f32", "bf16")]


def scheduled(backend: CpuBackend, kernel: Kernel) -> list[tuple[Kernel, Schedule]]:
    schedule = backend.schedule(kernel)
    assert isinstance(schedule, Schedule), schedule
    return [(kernel, schedule)]


@pytest.fixture(scope="module", autouse=True)
def compiled(backend: CpuBackend) -> None:
    """All kernels in single precision at once, in parallel."""
    work = [pair for p in PROBLEMS.values() for pair in scheduled(backend, kernel_of(geometry_of(p), "f32"))]
    backend.compile(work, lambda done, total: None)


@pytest.mark.parametrize("name", PROBLEMS)
def test_text_and_packed_weights_are_small(backend: CpuBackend, name: str):
    for kernel in kernels(PROBLEMS[name]):
        for schedule in backend.candidates(kernel):
            assert len(backend.source(kernel, schedule)) <= TEXT_BYTES
            weight = kernel.geometry.weight_shape
            packed = packing(kernel.geometry.window, weight, schedule).floats * 4
            assert packed <= max(PACKED_RATIO * prod(weight) * 4, SMALL_WEIGHT), schedule


@pytest.mark.parametrize("name", PROBLEMS)
def test_threads_need_little_memory(backend: CpuBackend, name: str):
    kernel = kernel_of(geometry_of(PROBLEMS[name]), "f32")
    (pair,) = scheduled(backend, kernel)
    assert memory_bytes(backend, *pair) <= MEMORY_BYTES


RESNET50 = [
    ((1, 224, 224, 3), (64, 7, 7, 3), 2, 1),
    *(((1, n, n, c), (c, 3, 3, c), 1, count) for n, c, count in ((56, 64, 3), (28, 128, 3), (14, 256, 5), (7, 512, 2))),
    *(((1, 2 * n, 2 * n, c), (c, 3, 3, c), 2, 1) for n, c in ((28, 128), (14, 256), (7, 512))),
    *(
        ((1, n, n, c), (4 * c, 1, 1, c), 1, count)
        for n, c, count in ((56, 64, 4), (28, 128, 4), (14, 256, 6), (7, 512, 3))
    ),
    *(
        ((1, n, n, 4 * c), (c, 1, 1, 4 * c), 1, count)
        for n, c, count in ((56, 64, 2), (28, 128, 3), (14, 256, 5), (7, 512, 2))
    ),
]
"""Input, weight, stride and how often, but for the few that change the width of a stage."""

VGG16 = [
    ((1, n, n, i), (o, 3, 3, i), 1, count)
    for n, i, o, count in (
        *((224, 3, 64, 1), (224, 64, 64, 1), (112, 64, 128, 1), (112, 128, 128, 1), (56, 128, 256, 1)),
        *((56, 256, 256, 2), (28, 256, 512, 1), (28, 512, 512, 2), (14, 512, 512, 3)),
    )
]


RESNET18 = [
    ((1, 224, 224, 3), (64, 7, 7, 3), 2, 1),
    *(((1, n, n, c), (c, 3, 3, c), 1, count) for n, c, count in ((56, 64, 4), (28, 128, 3), (14, 256, 3), (7, 512, 3))),
    *(((1, 2 * n, 2 * n, c), (2 * c, 3, 3, c), 2, 1) for n, c in ((28, 64), (14, 128), (7, 256))),
]

UNET = [
    ((1, n, n, c), (o, 3, 3, c), 1, count)
    for n, c, o, count in ((64, 320, 320, 12), (32, 640, 640, 10), (16, 1280, 1280, 12), (16, 2560, 1280, 3))
]
"""The convolutions of a latent diffusion model, but for a few."""

NETWORKS = {"ResNet-50": RESNET50, "ResNet-18": RESNET18, "VGG-16": VGG16, "UNet": UNET}


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_packed_weights_of_a_network(
    backend: CpuBackend, layers: list[tuple[tuple[int, ...], tuple[int, ...], int, int]]
):
    packed = original = 0
    for x, weight, stride, count in layers:
        pad = (weight[1] // 2,) * 2
        window = Window((stride,) * 2, pad, pad, (1, 1), (1, 1))
        kernel = kernel_of(Geometry.of_shapes(x, weight, window), "f32")
        (_, schedule) = scheduled(backend, kernel)[0]
        packed += count * packing(window, weight, schedule).floats
        original += count * prod(weight)
    assert packed <= PACKED_RATIO_OF_NETWORK * original
