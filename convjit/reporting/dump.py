"""`CONVJIT_DUMP=<dir>`: the IR after every pass, the sources and the parameters of each compiled program, numbered.

dump/001-ResNet/00-traced.mlir  01-raise-conv.mlir  ...  parameters.txt  sources/<kernel>.c
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convjit.tracing.capture import Capture

_SAFE = re.compile(r"[^\w.-]+")


def folder_for(name: str) -> Path | None:
    """A new, numbered folder for one program, or None where nothing is to be dumped.

    Warns:
        RuntimeWarning: if the folder cannot be made; the program is then compiled without.
    """
    chosen = os.environ.get("CONVJIT_DUMP")
    if not chosen:
        return None
    top = Path(chosen).expanduser()
    number = 1
    while list(top.glob(f"{number:03}-*")):
        number += 1
    folder = top / f"{number:03}-{safe_name(name)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warnings.warn(f"CONVJIT_DUMP: cannot write to {top} ({error.strerror})", RuntimeWarning, stacklevel=2)
        return None
    return folder


def write_sources(folder: Path, sources: dict[str, str], backend: str) -> None:
    """Write the kernel texts of a backend, one file for each name."""
    suffix = "c" if backend == "cpu" else "metal"
    (folder / "sources").mkdir(exist_ok=True)
    for name, text in sources.items():
        (folder / "sources" / f"{safe_name(name)}.{suffix}").write_text(text)


def write_parameters(folder: Path, captured: Capture) -> None:
    """Write the name, kind, shape and dtype of every argument of the traced function."""
    lines = [
        f"{argument.kind:9} {argument.name}  {shape} {dtype}\n"
        for argument, (shape, dtype) in zip(captured.arguments, captured.tape.shapes.values(), strict=True)
    ]
    (folder / "parameters.txt").write_text("".join(lines))


def safe_name(name: str) -> str:
    """`name` as a file name."""
    return _SAFE.sub("_", name) or "_"
