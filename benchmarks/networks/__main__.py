"""Whole networks on the CPU: convjit beside onnxruntime, OpenVINO, PyTorch and plain MLX.

    python -m benchmarks.networks                            all of them
    python -m benchmarks.networks mobilenet_v2 --no-mlx      one, quickly
    python -m benchmarks.networks resnet50 --dtype bf16      stored in bfloat16, beside convjit in float32, too
    python -m benchmarks.networks vae_decoder --profile      where convjit's time goes, and no other engine

All engines run in one process, in turns, on as many threads as convjit. With --save, what was measured takes its place
in benchmarks/results/networks.json and networks.svg.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from statistics import geometric_mean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from benchmarks import measure
from benchmarks.layers.record import merged, read, write
from benchmarks.networks import report
from benchmarks.networks.architectures import ARCHITECTURES
from benchmarks.networks.in_mlx import model_and_input
from benchmarks.networks.record import Record
from benchmarks.networks.run import Peer, measured
from benchmarks.networks.sketch import network
from benchmarks.networks.steps import profiled
from convjit.backends import registry


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    os.environ["CONVJIT_TUNE"] = "0"
    console = Console(soft_wrap=True, highlight=False)
    names = options.names or list(ARCHITECTURES)
    return _profile(names, options, console) if options.profile else _measure(names, options, console)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.networks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="network", help=", ".join(ARCHITECTURES))
    parser.add_argument("--batch", type=int, default=1, help="images of a call")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each engine")
    parser.add_argument("--no-mlx", action="store_true", help="leave out plain MLX, which takes seconds a call")
    parser.add_argument("--only-ours", action="store_true", help="leave out the other engines")
    parser.add_argument("--profile", action="store_true", help="time the steps of convjit's program instead")
    parser.add_argument("--save", action="store_true", help="keep what was measured")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in ARCHITECTURES]:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(ARCHITECTURES)}")
    return options


def _profile(names: Sequence[str], options: argparse.Namespace, console: Console) -> int:
    for name in names:
        made = network(ARCHITECTURES[name], options.batch, dtype=options.dtype)
        console.print(made.architecture.title)
        steps = profiled(*model_and_input(made), options.rounds)
        console.print("\n".join(report.profile_lines(steps)), "", sep="\n", markup=False)
    return 0


def _measure(names: Sequence[str], options: argparse.Namespace, console: Console) -> int:
    peers = {} if options.only_ours else _peers()
    backend = registry.get("cpu")
    records: list[Record] = []
    failed = 0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:

            def tell(doing: str, name: str = name) -> None:
                progress.update(task, description=f"{name}: {doing}")

            made = network(ARCHITECTURES[name], options.batch, dtype=options.dtype)
            try:
                records.append(measured(name, made, backend, peers, options.rounds, not options.no_mlx, tell))
                console.print("\n".join(report.lines(records[-1])), markup=False)
            except Exception as error:  # one that cannot be compiled is no reason to leave out the others
                failed += 1
                console.print(f"{name} FAILED  {type(error).__name__}: {error}", markup=False)
            progress.advance(task)
    ratios = [r.ratio for r in records if r.ratio]
    if ratios:
        console.print(f"{len(ratios)} networks, best peer: {geometric_mean(ratios):.2f}x")
    if options.save:
        file = measure.RESULTS / "networks.json"
        kept = merged(read(file, Record), records)
        write(file, kept)
        report.plot(kept, file.with_suffix(".svg"))
        console.print(f"written to {file}, with networks.svg beside it")
    return 1 if failed else 0


def _peers() -> dict[str, Peer]:
    from benchmarks.networks.peers import PEERS

    return PEERS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
