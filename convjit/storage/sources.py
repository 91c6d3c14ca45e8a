"""Which code is at work: what this package keeps on disk and what depends on its code is kept by a digest of that.

Versions would not do: a checkout has the same one from one commit to the next.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATES = PACKAGE / "templates" if (PACKAGE / "templates").is_dir() else PACKAGE.parent / "templates"
"""The folder of templates: inside the package in a wheel, beside it in a checkout."""


@cache
def digest(*folders: Path) -> str:
    """Of the names and contents of all files in these folders. Read once a process."""
    content = hashlib.sha256()
    for folder in folders:
        for home, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            for name in sorted(names):
                with open(os.path.join(home, name), "rb") as file:
                    data = file.read()
                content.update(f"{name}:{len(data)}:".encode())
                content.update(data)
    return content.hexdigest()
