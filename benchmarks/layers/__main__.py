"""Convolutions with bias and ReLU on the CPU: convjit beside onnxruntime, OpenVINO, PyTorch and plain MLX.

    python -m benchmarks.layers                         all problems, one convolution at a time, float32
    python -m benchmarks.layers d56 d7 --no-mlx         two of them, quickly
    python -m benchmarks.layers d56 --candidates        all our schedules beside the peers
    python -m benchmarks.layers d56 --schedule 'cpu/direct.c tile_rows=2'

All engines run in one process, in turns, on as many threads as convjit. With --save, what was measured takes its place
in benchmarks/results/layers.json, layers.md and layers.svg.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import measure
from benchmarks.problems import Problem, experiments, problems

AVX2 = {
    "CONVJIT_CC": "gcc -march=x86-64-v3",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""What holds convjit, PyTorch and OpenVINO to AVX2. onnxruntime cannot be held: it counts as no peer then."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if options.isa == "avx2" and any(os.environ.get(name) != value for name, value in AVX2.items()):
        program = [sys.executable, "-m", "benchmarks.layers", *arguments]
        os.execve(sys.executable, program, {**os.environ, **AVX2})  # engines look at these when they are loaded
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CONVJIT_CACHE_DIR": folder, "CONVJIT_TUNE": "0"}
        return _run(options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="problems, by name")
    parser.add_argument("--set", choices=("experiments", "problems", "all"), default="all", help="where none is named")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--user", dest="mode", action="store_const", const="user", help="call as users do")
    mode.add_argument("--chain", dest="mode", action="store_const", const="chain", help="nine layers, cold weights")
    parser.set_defaults(mode="alone")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--isa", choices=("native", "avx2"), default="native")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine")
    parser.add_argument(
        "--patient", action="store_true", help="measure a problem again, up to five times, while others disturb it"
    )
    parser.add_argument("--no-mlx", action="store_true", help="leave out plain MLX, which takes minutes for all")
    parser.add_argument("--candidates", action="store_true", help="measure all our schedules")
    parser.add_argument("--schedule", default="", help="measure this one of ours, too: template choice=value ...")
    parser.add_argument("--save", action="store_true", help="keep what was measured")
    options = parser.parse_args(arguments)
    known = {p.name for p in (*experiments(), *problems())}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no problem {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return options


def _chosen(options: argparse.Namespace) -> list[tuple[str, Problem]]:
    """The problems to measure, each with the set that it is from."""
    sets = {"experiments": experiments(), "problems": problems()}
    return [
        (kind, problem)
        for kind, members in sets.items()
        for problem in members
        if (problem.name in options.names if options.names else options.set in ("all", kind))
    ]


def _run(options: argparse.Namespace) -> int:
    from benchmarks.layers import record, report
    from benchmarks.layers.bars import verdicts
    from benchmarks.layers.network import can_chain, geometry_of
    from benchmarks.layers.run import Settings, measured
    from convjit.backends import registry

    backend = registry.get("cpu")
    console = Console(soft_wrap=True, highlight=False)
    settings = Settings(
        options.mode,
        options.dtype,
        options.isa,
        backend._runtime.threads,
        options.rounds,
        not options.no_mlx and options.mode == "alone",
        options.schedule,
        options.candidates,
        5 if options.patient else 1,
    )
    work = [(k, p) for k, p in _chosen(options) if options.mode != "chain" or can_chain(geometry_of(p))]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    records: list[record.Record] = []
    failed = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(work))
        for kind, problem in work:
            progress.update(task, description=problem.name)
            try:
                records.append(measured(problem, kind, backend, settings))
                console.print("\n".join(report.lines(records[-1])), markup=False)
            except Exception as error:  # a kernel that cannot be made is no reason to leave out the others
                failed += 1
                console.print(f"{problem.name:16} FAILED  {type(error).__name__}: {error}", markup=False)
            progress.advance(task)
    for verdict in verdicts(records):
        console.print(str(verdict), markup=False)
    if options.save:
        file = measure.RESULTS / "layers.json"
        kept = record.merged(record.read(file, record.Record), records)
        record.write(file, kept)
        file.with_suffix(".md").write_text(report.markdown(kept, measure.machine()))
        report.plot(kept, file.with_suffix(".svg"))
        console.print(f"written to {file}, with layers.md and layers.svg beside it")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
