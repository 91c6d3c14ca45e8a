"""One problem, measured: our kernels, the peers, MLX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import convjit
from benchmarks.layers import ours
from benchmarks.layers.accuracy import Errors, errors
from benchmarks.layers.engines import Engines, compare, in_short
from benchmarks.layers.network import CHAIN, Dtype, Network, Refused, Way, can_chain, geometry_of, network
from benchmarks.layers.peak import flops_per_second
from benchmarks.layers.peers import PEERS, plain_mlx
from benchmarks.layers.record import MLX, OURS, QUIET, Isa, Mode, Record
from benchmarks.layers.timing import Times, few_calls, interleaved
from benchmarks.problems import Problem
from convjit.backends.cpu import CpuBackend
from convjit.schedule import Schedule

SAME = {"f32": 1e-3, "bf16": 5e-2}
"""How far a peer's result may be from ours, relative to the largest: more is another convolution."""

Timed = tuple[Times[str], dict[str, str]]
"""Of each engine, and why others have none."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a problem is measured.

    Attributes:
        mode, dtype, isa: as in `Record`.
        threads: of every engine.
        rounds: turns of every engine.
        with_mlx: is plain MLX measured?
        schedule: "", or what is run in place of our own choice, as `ours.altered` reads it.
        all_candidates: are all our schedules measured?
        attempts: how often a problem is measured at most, while other processes disturb it.
    """

    mode: Mode
    dtype: Dtype
    isa: Isa
    threads: int
    rounds: int
    with_mlx: bool
    schedule: str = ""
    all_candidates: bool = False
    attempts: int = 1


def measured(problem: Problem, kind: str, backend: CpuBackend, settings: Settings) -> Record:
    """Make, check and time everything that runs a problem."""
    geometry = geometry_of(problem)
    single = network(geometry, settings.dtype)
    schedules = _schedules(backend, single, settings)
    schedule = schedules[0]
    made = ours.make(backend, single, schedule)
    found = Errors(0.0, 0.0)
    if settings.mode == "alone":
        found = errors(single, ours.way(backend, single, schedule).output())
    peak = flops_per_second(backend._toolchain, settings.threads)
    (seconds, others), refused = min(_attempts(single, backend, schedules, settings), key=lambda t: t[0].others)
    if settings.with_mlx:
        _add_mlx(single, seconds, refused)
    return Record(
        problem=problem.name,
        kind=kind,
        convolution=geometry.in_words(batch=True),
        is_shrunk=geometry != problem.geometry,
        mode=settings.mode,
        dtype=settings.dtype,
        isa=settings.isa,
        flops=geometry.flops,
        peak=max(peak, flops_per_second(backend._toolchain, settings.threads)),
        others=others,
        seconds=seconds,
        refused=refused,
        schedule=schedule.in_words(),
        relative_error=found.relative,
        elementwise_error=found.elementwise,
        compile_seconds=made.seconds,
        text_bytes=made.text_bytes,
        packed_bytes=made.packed_bytes,
        packed_ratio=made.packed_ratio,
        memory_bytes=made.memory_bytes,
    )


def _attempts(
    single: Network, backend: CpuBackend, schedules: Sequence[Schedule], settings: Settings
) -> Iterator[Timed]:
    """One, and more while other processes disturb it and there is patience."""
    for _ in range(settings.attempts):
        times, refused = _MODES[settings.mode](single, backend, schedules, settings)
        yield times, refused
        if times.others <= QUIET:
            return


def _schedules(backend: CpuBackend, single: Network, settings: Settings) -> list[Schedule]:
    """What is measured, first what the record is of."""
    kernel = ours.kernel_of(single.geometry, settings.dtype)
    chosen = ours.chosen(backend, kernel)
    candidates = backend.candidates(kernel)
    if settings.schedule:
        return [ours.altered(candidates, settings.schedule), chosen]
    others = [s for s in candidates if s != chosen] if settings.all_candidates else []
    return [chosen, *others]


def _alone(single: Network, backend: CpuBackend, schedules: Sequence[Schedule], settings: Settings) -> Timed:
    engines = _bound(single, backend, schedules, settings)
    return interleaved({name: way.run for name, way in engines.ways.items()}, settings.rounds), engines.refused


def _chain(single: Network, backend: CpuBackend, schedules: Sequence[Schedule], settings: Settings) -> Timed:
    """Seconds of each convolution behind the first: what an engine does once a call does not count."""
    if not can_chain(single.geometry):
        raise Refused("its result cannot be its input")
    engines = {
        depth: _bound(network(single.geometry, settings.dtype, depth), backend, schedules, settings)
        for depth in (1, CHAIN)
    }
    both = [name for name in engines[1].ways if name in engines[CHAIN].ways]
    calls = {(name, depth): found.ways[name].run for depth, found in engines.items() for name in both}
    seconds, others = interleaved(calls, settings.rounds)
    refused = engines[1].refused | engines[CHAIN].refused
    per_layer: dict[str, float] = {}
    for name in both:
        more = seconds[name, CHAIN] - seconds[name, 1]
        if more > 0:
            per_layer[name] = more / (CHAIN - 1)
        else:
            refused[name] = f"{CHAIN} layers took no longer than one: its times are noise"
    return Times(per_layer, others), refused


def _user(single: Network, backend: CpuBackend, schedules: Sequence[Schedule], settings: Settings) -> Timed:
    engines = Engines()
    function = plain_mlx.function(single)
    engines.add(OURS, lambda: plain_mlx.way(single, convjit.compile(function, backend="cpu", fallback="error")))
    _add_peers(engines, single, settings, bound=False)
    return interleaved({name: way.run for name, way in engines.ways.items()}, settings.rounds), engines.refused


_MODES: dict[Mode, Callable[[Network, CpuBackend, Sequence[Schedule], Settings], Timed]] = {
    "alone": _alone,
    "chain": _chain,
    "user": _user,
}


def _bound(chain: Network, backend: CpuBackend, schedules: Sequence[Schedule], settings: Settings) -> Engines:
    """Ours, every other schedule that is asked for, and the peers."""
    engines = Engines()
    for schedule in schedules:
        name = OURS if schedule == schedules[0] else f"{OURS}: {schedule.in_words()}"
        engines.add(name, lambda s=schedule: ours.way(backend, chain, s))
    _add_peers(engines, chain, settings, bound=True)
    return engines


def _add_peers(engines: Engines, chain: Network, settings: Settings, bound: bool) -> None:
    expected = engines.ways[OURS].output() if OURS in engines.ways else None

    def accept(way: Way) -> None:
        if expected is not None:
            compare(way.output(), expected, SAME[settings.dtype])

    for name, peer in PEERS.items():
        engines.add(name, lambda p=peer: p(chain, settings.threads, bound), accept)


def _add_mlx(single: Network, seconds: dict[str, float], refused: dict[str, str]) -> None:
    try:
        seconds[MLX] = few_calls(plain_mlx.way(single).run)
    except Exception as error:
        refused[MLX] = in_short(error)
