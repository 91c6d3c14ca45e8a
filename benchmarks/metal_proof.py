"""Is every Metal kernel right on this Mac, and how fast is it? One command, two files to send back.

    make metal-proof
    python -m benchmarks.metal_proof --quick            a sample, in a minute or two
    python -m benchmarks.metal_proof --resume           go on where the last run ended, or took the process down
    python -m benchmarks.metal_proof --only rn50_stem   one problem; may be given several times

Runs the 58 problems of `conv_problems.json` in float32, float16 and bfloat16, alone and with bias, SiLU and residual
fused in, and the gradients of their weights, by the schedule that convjit would choose; and by all other schedules that
there are, in float32; then what else a train step has, elementwise kernels. Each is proven as convjit proves it
(`convjit.proof`), then timed against MLX's own ops, plain and under `mx.compile`. One that fails leaves a bundle for
`python -m convjit repro`, and the run goes on. Without a Metal device the kernels run in the simulator, on shrunk
problems, and are not timed.

Writes benchmarks/results/metal_proof.json and metal_proof.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.elementwise import EPILOGUE, STEPS, Step
from benchmarks.kernels import EPILOGUES, WEIGHT_GRADIENT, kernel_of, mlx_of
from benchmarks.measure import RESULTS
from benchmarks.metal_report import Record, markdown
from benchmarks.problems import Problem, problems, shrink
from convjit import proof
from convjit.backends import MLX_DTYPES, Stretch, registry
from convjit.backends.metal import MetalBackend
from convjit.backends.simulator import SimulatorBackend
from convjit.kernel import DTYPES, AnyKernel, Kernel
from convjit.proof import bundle, check
from convjit.schedule import Schedule
from convjit.schedule.metal import candidates
from convjit.schedule.metal.chip import this_chip
from convjit.storage.environment import environment, macos_version
from convjit.tuning import stopwatch

NAME = "metal_proof"
ALL_SCHEDULES = {("f32", "bias+SiLU+residual"), ("f32", WEIGHT_GRADIENT)}
"""Storage types and epilogues for which every candidate is tried, not only the chosen schedule."""
_QUICK = 9
"""Of so many problems, one."""
_MOST_FLOPS = 2e12
"""A problem with more is shrunk on a device, too: it would take minutes, and more memory than most Macs have."""

Run = Callable[[Sequence[mx.array]], Sequence[mx.array]]


@dataclass(frozen=True, slots=True)
class Case:
    """A problem with a storage type and an epilogue, or `WEIGHT_GRADIENT`; or a step of elementwise ops."""

    problem: Problem | Step
    dtype: str
    epilogue: str

    @property
    def name(self) -> str:
        return f"{self.problem.name}, {self.dtype}, {self.epilogue}"

    def kernel(self) -> tuple[AnyKernel, bool]:
        """What to run, and whether it was made smaller."""
        has_metal = mx.metal.is_available()
        if isinstance(self.problem, Step):
            return self.problem.kernel(self.dtype, is_small=not has_metal), not has_metal
        geometry = self.problem.geometry
        is_shrunk = not has_metal or geometry.flops > _MOST_FLOPS
        return kernel_of(shrink(geometry) if is_shrunk else geometry, self.dtype, self.epilogue), is_shrunk


def cases(only: Sequence[str], dtypes: Sequence[str], quick: bool) -> list[Case]:
    """What is to be run.

    Raises:
        ValueError: for a name in `only` that no problem has.
    """
    known: dict[str, Problem | Step] = {p.name: p for p in (*problems(), *STEPS)}
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"no problem {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in only] or [*problems()[:: _QUICK if quick else 1], *STEPS]
    return [
        Case(problem, dtype, epilogue)
        for problem in chosen
        for dtype in dtypes
        for epilogue in _epilogues(problem, quick)
    ]


def _epilogues(problem: Problem | Step, quick: bool) -> tuple[str, ...]:
    """A transposed convolution's weight gradient is a plain one's, with input and output exchanged."""
    if isinstance(problem, Step):
        return (EPILOGUE,)
    if quick:
        return EPILOGUES[-1:]
    window = problem.geometry.window
    return EPILOGUES if window.transposed or window.flip else (*EPILOGUES, WEIGHT_GRADIENT)


def run_case(case: Case, backend: MetalBackend, *, alternatives: bool) -> Iterator[Record]:
    """Prove and time the chosen schedule of a case, and, if asked, all others that there are."""
    kernel, is_shrunk = case.kernel()
    chosen = backend.schedule(kernel)
    assert isinstance(chosen, Schedule), f"{case.name}: {chosen}"
    schedules = [chosen]
    if alternatives and isinstance(kernel, Kernel) and (case.dtype, case.epilogue) in ALL_SCHEDULES:
        others = candidates(replace(kernel, accuracy="fastest"), this_chip(), macos_version())
        schedules = list(dict.fromkeys([chosen, *others]))
    verdicts = {schedule: _proven(backend, kernel, schedule) for schedule in schedules}
    seconds: dict[str, float] = {}
    if mx.metal.is_available():
        seconds = _seconds(backend, kernel, _mlx_of(case, kernel), [s for s, v in verdicts.items() if v.is_right])
    for schedule, verdict in verdicts.items():
        folder = None if verdict.is_right else _bundle(backend, case, kernel, schedule, verdict)
        yield Record(
            problem=case.problem.name,
            convolution=kernel.geometry.in_words(batch=True) if isinstance(kernel, Kernel) else kernel.in_words(),
            is_shrunk=is_shrunk,
            dtype=case.dtype,
            epilogue=case.epilogue,
            schedule=schedule.in_words(),
            is_chosen=schedule == chosen,
            failure="" if verdict.is_right else str(verdict),
            bundle=str(folder or ""),
            deviation=verdict.deviation,
            seconds=seconds.get(schedule.in_words()),
            mlx_seconds=seconds.get("mlx"),
            compiled_seconds=seconds.get("mx.compile"),
            bytes=_bytes(kernel),
            flops=kernel.geometry.flops if isinstance(kernel, Kernel) else 0,
        )


def _mlx_of(case: Case, kernel: AnyKernel) -> Run:
    """The same by MLX's own ops."""
    if isinstance(case.problem, Step):
        step = case.problem.mlx
        return lambda arrays: step(*arrays)
    assert isinstance(kernel, Kernel)
    return mlx_of(kernel)


def _proven(backend: MetalBackend, kernel: AnyKernel, schedule: Schedule) -> proof.Verdict:
    """Compared with float64; in the simulator, with nothing for checker, linter and type check to find, either."""
    small = proof.for_proof(kernel, schedule)
    verdict = proof.prove(small, schedule, proof.runner(backend, small, schedule))
    if not verdict.is_right or not isinstance(backend, SimulatorBackend):
        return verdict
    arrays = _packed(backend, small, schedule, check.inputs(small, np.random.default_rng(proof.SEED)))
    findings = backend.examine(backend.dispatches(small, schedule), arrays).findings
    return proof.Verdict(error="; ".join(findings)) if findings else verdict


def _packed(backend: MetalBackend, kernel: AnyKernel, schedule: Schedule, arrays: Sequence[mx.array]) -> list[mx.array]:
    """What a kernel reads: of a convolution, the weight in the order of its schedule."""
    read = list(arrays)
    if isinstance(kernel, Kernel):
        read[1] = backend.pack(kernel.geometry.window, schedule, read[1])
    return read


def _bundle(
    backend: MetalBackend, case: Case, kernel: AnyKernel, schedule: Schedule, verdict: proof.Verdict
) -> Path | None:
    return bundle.write(backend, case.problem.name, proof.for_proof(kernel, schedule), schedule, verdict)


def _bytes(kernel: AnyKernel) -> int:
    """What has to be read and written at least."""
    arrays = [*zip(kernel.result_shapes, kernel.result_dtypes, strict=True)]
    if isinstance(kernel, Kernel):
        arrays += [(shape, kernel.dtype) for shape in kernel.operand_shapes]
    arrays += [(e.shape, e.dtype) for e in (kernel.extras if isinstance(kernel, Kernel) else kernel.operands)]
    return sum(int(np.prod(shape)) * DTYPES[dtype] for shape, dtype in arrays)


def _seconds(backend: MetalBackend, kernel: AnyKernel, mlx: Run, schedules: Sequence[Schedule]) -> dict[str, float]:
    """Of each schedule and of MLX's own ops, medians; what cannot run is left out.

    The first way of a race is timed to the end even if it is hopelessly slow, so each of MLX's has a race of its own.
    """
    x, *others = arrays = check.inputs(kernel, np.random.default_rng(proof.SEED))
    compiled = mx.compile(lambda *arrays: mlx(arrays))
    ours: dict[str, stopwatch.Run] = {}
    for schedule in schedules:
        run, read = backend.load(Stretch.of_kernel(kernel, schedule)), _packed(backend, kernel, schedule, arrays)[1:]
        mx.eval(read)
        ours[schedule.in_words()] = lambda x, run=run, read=read: run([x, *read])
    peers: dict[str, stopwatch.Run] = {
        "mlx": lambda x: mlx([x, *others]),
        "mx.compile": lambda x: compiled(x, *others),
    }
    seconds: dict[str, float] = {}
    for name, peer in peers.items():
        ways = {n: way for n, way in {name: peer, **ours}.items() if _runs(way, x)}
        seconds = {n: s.median for n, s in stopwatch.race(ways, x).items()} | seconds
    return seconds


def _runs(way: stopwatch.Run, x: mx.array) -> bool:
    try:
        mx.eval(way(x))
    except Exception:  # MLX has no grouped 3D convolution, for one
        return False
    return True


class Results:
    """The records so far, kept in a file after every case: what takes the process down does not take them, too."""

    def __init__(self, path: Path, *, resume: bool):
        self._path = path
        self.records: list[Record] = []
        self.done: list[str] = []
        self._running = ""
        if resume and path.exists():
            kept = json.loads(path.read_text())
            self.records = [Record(**record) for record in kept["records"]]
            self.done = [*kept["done"], *([kept["running"]] if kept["running"] else [])]
            if kept["running"]:
                problem, dtype, epilogue = kept["running"].split(", ")
                self.records.append(Record.died(problem, dtype, epilogue))

    def start(self, case: Case) -> None:
        self._running = case.name
        self._save()

    def finish(self, case: Case, records: Sequence[Record]) -> None:
        self._running = ""
        self.records += records
        self.done.append(case.name)
        self._save()

    def interrupt(self) -> None:
        """The case that runs is to be run again: it was not its fault."""
        self._running = ""
        self._save()

    def _save(self) -> None:
        record = {
            "environment": environment(),
            "chip": asdict(this_chip()),
            "running": self._running,
            "done": self.done,
            "records": [asdict(r) for r in self.records],
        }
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(record, indent=1) + "\n")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yields `advance(text)`: a bar on a terminal, where rich is installed, or nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="PROBLEM", help="a problem; may be repeated")
    parser.add_argument("--dtype", action="append", choices=tuple(MLX_DTYPES), help="a storage type; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a sample of the problems; chosen schedules only")
    parser.add_argument("--resume", action="store_true", help="keep what the last run has found, and go on")
    options = parser.parse_args(arguments)
    try:
        todo = cases(options.only, options.dtype or list(MLX_DTYPES), options.quick)
    except ValueError as e:
        parser.error(str(e))
    backend: Any = registry.get("metal" if mx.metal.is_available() else "simulator")
    results = Results(RESULTS / f"{NAME}.json", resume=options.resume)
    todo = [case for case in todo if case.name not in results.done]
    with _progress(len(todo)) as advance:
        for case in todo:
            results.start(case)
            try:
                records = list(run_case(case, backend, alternatives=not options.quick))
            except KeyboardInterrupt:
                results.interrupt()
                print("interrupted; --resume goes on from here", file=sys.stderr)
                return 130
            results.finish(case, records)
            advance(case.name)
    report = RESULTS / f"{NAME}.md"
    report.write_text(markdown(results.records, environment(), this_chip()))
    wrong = [r for r in results.records if r.failure]
    print(f"{len(results.records)} kernels, {len(wrong)} wrong; written to {report} and {NAME}.json")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
