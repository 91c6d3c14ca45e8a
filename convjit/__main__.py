"""`python -m convjit`: what can be done from the shell.

python -m convjit repro <bundle>      run a kernel that failed its proof again
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_REPRO = """\
Run a kernel that failed its proof again, from the bundle that it left.

It runs on Metal if this machine has a device; else in convjit's simulator, which also checks the text as Metal would
and every access to memory. Inputs are the same random numbers as then. If this version of convjit writes another text
for the kernel, that is run, too.

exit status: 0 if the bundle's kernel is right here, 1 if it is wrong or does not run, 2 if there is no such bundle."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m convjit", description="A JIT compiler for convolutions in MLX.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    repro = commands.add_parser(
        "repro",
        help="run a kernel that failed its proof again, from the bundle that it left",
        description=_REPRO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    repro.add_argument("bundle", type=Path, help="the folder that the warning names")
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 0
    return _repro(chosen.bundle)


def _repro(folder: Path) -> int:
    from convjit.backends import BackendError
    from convjit.proof import bundle, repro

    try:
        found = bundle.read(folder)
    except bundle.BundleError as e:
        print(f"convjit: {e}", file=sys.stderr)
        return 2
    print(*repro.describe(found), sep="\n")
    if warning := repro.takes_long(found):
        print(warning, flush=True)
    try:
        replayed = repro.replay(found)
    except BackendError as e:
        print(f"convjit: {e}", file=sys.stderr)
        return 1
    print(*replayed.lines(), sep="\n")
    return 0 if replayed.verdict.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
