"""Content key -> artefact: compiled files kept on disk between processes.

A file's name holds the digest of its content, so that one rename publishes it, and a file that was damaged since
(dlopen of a damaged library can kill the process) is found out before it is used. It is then made again.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

MAX_BYTES = 2 << 30
"""What the folder may hold; a process that adds to it first removes the files that were not used for longest."""

_lock = threading.Lock()
_private_folders: dict[Path, Path] = {}
_DIGEST_LENGTH = 64


def content_key(*parts: str) -> str:
    """A digest of `parts`, in hexadecimal: equal only for the same strings in the same order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:40]


def folder() -> Path:
    """Where artefacts are kept: `CONVJIT_CACHE_DIR`, or convjit's part of the user's cache folder."""
    if chosen := os.environ.get("CONVJIT_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "convjit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convjit"


def artefact(key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file for `key`, made if it is not there yet. Any number of threads and processes may ask at once.

    Args:
        key: from `content_key`, of everything that the content depends on.
        suffix: how the file's name ends, such as ".so".
        make: writes the content to the path that it is given. What it raises is passed on.

    Warns:
        RuntimeWarning: if the folder cannot be written to, or its disk is full; the files of
            this process then go to a private one.
    """
    if found := find(key, suffix):
        return found
    chosen = folder()
    home = Path(key[:2], key)
    root = _private_folders.get(chosen, chosen)
    with tempfile.TemporaryDirectory(prefix="convjit-") as scratch:
        made = Path(scratch, f"new{suffix}")
        make(made)
        try:
            _prune_once(root)
            return _publish(made, root / home)
        except OSError as error:
            return _publish(made, _private_folder(chosen, error) / home)


def find(key: str, suffix: str) -> Path | None:
    """The file for `key`, undamaged, or None if there is none."""
    chosen = folder()
    return _lookup(_private_folders.get(chosen, chosen) / key[:2] / key, suffix)


def _publish(made: Path, home: Path) -> Path:
    """A copy of `made` in the folder of a key, under the name that tells its content; whole or not at all."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="new-", dir=home)
    os.close(handle)
    temporary = Path(name)
    try:
        shutil.copyfile(made, temporary)
        shutil.copymode(made, temporary)  # it may be a program
        return temporary.replace(home / (_digest(made) + made.suffix))
    finally:
        temporary.unlink(missing_ok=True)


def _lookup(home: Path, suffix: str) -> Path | None:
    """The undamaged file with this suffix in the folder of a key; a damaged one is removed."""
    try:
        names = os.listdir(home)
    except OSError:
        return None
    for name in names:
        if name[_DIGEST_LENGTH:] != suffix:
            continue
        path = home / name
        with contextlib.suppress(OSError):
            if _digest(path) + suffix == name:
                _touch(path)
                return path
            path.unlink()
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _touch(path: Path) -> None:
    """Mark as used now, for `_prune_once`. A folder that is only readable needs no marks."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _private_folder(denied: Path, error: OSError) -> Path:
    """The folder that stands in for `denied` until this process ends."""
    with _lock:
        if denied in _private_folders:
            return _private_folders[denied]
        warnings.warn(
            f"cannot keep compiled kernels in {denied} ({error.strerror}), so they will be compiled again in the next "
            "process; set CONVJIT_CACHE_DIR to a folder that can be written to",
            RuntimeWarning,
            stacklevel=3,
        )
        private = Path(tempfile.mkdtemp(prefix="convjit-"))
        _private_folders[denied] = private
        atexit.register(_remove_own, private, os.getpid())
        return private


def _remove_own(private: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child leaves its parent's files alone
        shutil.rmtree(private, ignore_errors=True)


@cache
def _prune_once(root: Path) -> None:
    """Remove the files that were not used for longest, until those that stay fit into `MAX_BYTES`."""
    files: list[tuple[float, int, str]] = []
    for home, _, names in os.walk(root):
        for name in names:
            path = os.path.join(home, name)
            with contextlib.suppress(OSError):
                status = os.stat(path)
                files.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in files) - MAX_BYTES
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            excess -= size
