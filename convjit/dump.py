"""`CONVJIT_DUMP=<dir>`: the IR after every pass, the sources and the parameters of each compiled program, numbered.

dump/001-ResNet/00-traced.mlir  01-raise-conv.mlir  ...  parameters.txt  sources/<layer>.c
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_SAFE = re.compile(r"[^\w.-]+")


def folder_for(name: str) -> Path | None:
    """A new, numbered folder for one program, or None where nothing is to be dumped."""
    top = os.environ.get("CONVJIT_DUMP")
    if not top:
        return None
    number = 1
    while True:
        existing = list(Path(top).glob(f"{number:03}-*"))
        folder = Path(top) / f"{number:03}-{safe_name(name)}"
        if not existing:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        number += 1


def safe_name(name: str) -> str:
    """`name` as a file name."""
    return _SAFE.sub("_", name) or "_"
