"""The disk cache: published whole or not at all, verified, bounded, and never in the way."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convjit.storage import cache


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def writer(text: str, calls: list[int] | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        if calls is not None:
            calls.append(1)
        path.write_text(text)

    return make


def test_keys_tell_parts_apart():
    assert cache.content_key("ab", "c") != cache.content_key("a", "bc")
    assert cache.content_key("a", "b") == cache.content_key("a", "b")
    assert cache.content_key("a", "") != cache.content_key("a")


def test_made_once_then_found():
    calls: list[int] = []
    key = cache.content_key("x")
    first = cache.artefact(key, ".so", writer("content", calls))
    assert first.read_text() == "content"
    assert cache.artefact(key, ".so", writer("content", calls)) == first
    assert len(calls) == 1
    assert cache.artefact(key, ".txt", writer("other", calls)) != first


@pytest.mark.parametrize("damage", ["", "conten", "conTent", "content and more"])
def test_damaged_file_is_made_again(damage: str):
    key = cache.content_key("x")
    cache.artefact(key, ".so", writer("content")).write_text(damage)
    calls: list[int] = []
    again = cache.artefact(key, ".so", writer("content", calls))
    assert calls and again.read_text() == "content"


def test_failed_make_leaves_nothing(own_folder: Path):
    def fail(path: Path) -> None:
        path.write_text("half of")
        raise RuntimeError("compiler died")

    key = cache.content_key("x")
    with pytest.raises(RuntimeError, match="compiler died"):
        cache.artefact(key, ".so", fail)
    assert not [p for p in own_folder.rglob("*") if p.is_file()]
    assert cache.artefact(key, ".so", writer("content")).read_text() == "content"


def test_default_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CONVJIT_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == tmp_path / "Library" / "Caches" / "convjit"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "convjit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "convjit"


def test_unusable_folder_warns_once_and_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")  # a folder inside a file can never be made, not even by root
    monkeypatch.setenv("CONVJIT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    calls: list[int] = []
    with pytest.warns(RuntimeWarning, match=r"file.cache.*CONVJIT_CACHE_DIR"):
        first = cache.artefact(cache.content_key("x"), ".so", writer("content", calls))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.artefact(cache.content_key("x"), ".so", writer("content", calls)) == first
        cache.artefact(cache.content_key("y"), ".so", writer("other"))
    assert len(calls) == 1


def test_full_disk_warns_once_and_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def full(source: Path, target: Path) -> None:
        if target.is_relative_to(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(cache.shutil, "copyfile", full)
    with pytest.warns(RuntimeWarning, match=r"cache \(No space left on device\)"):
        first = cache.artefact(cache.content_key("x"), ".so", writer("content"))
    calls: list[int] = []
    assert cache.artefact(cache.content_key("x"), ".so", writer("content", calls)) == first
    assert first.read_text() == "content" and not calls
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_private_folder_goes_with_its_process(tmp_path: Path):
    (tmp_path / "file").write_text("")
    code = (
        "import os; from convjit.storage import cache\n"
        "path = cache.artefact('ab' * 20, '.so', lambda p: p.write_text('x'))\n"
        "if os.fork() == 0: raise SystemExit\n"
        "os.wait(); assert path.exists(); print(path)"
    )
    environment = {**os.environ, "CONVJIT_CACHE_DIR": str(tmp_path / "file" / "cache"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() and not Path(done.stdout.strip()).exists()


def test_oldest_files_go_first(monkeypatch: pytest.MonkeyPatch):
    paths = [cache.artefact(cache.content_key(str(n)), ".so", writer(str(n) * 100)) for n in range(4)]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    cache.artefact(cache.content_key("0"), ".so", writer("never made"))  # used just now, so no longer the oldest
    monkeypatch.setattr(cache, "MAX_BYTES", 250)
    cache._prune_once.cache_clear()
    new = cache.artefact(cache.content_key("new"), ".so", writer("new"))
    assert [p.exists() for p in [*paths, new]] == [True, False, False, True, True]


def make_slowly(number: int) -> str:
    def make(path: Path) -> None:
        with path.open("w") as file:
            for _ in range(200):
                file.write("line\n")
                file.flush()

    return "".join(cache.artefact(cache.content_key(str(n)), ".so", make).read_text() for n in range(5))


def test_threads_and_processes_at_once():
    with ThreadPoolExecutor(4) as threads, multiprocessing.get_context("spawn").Pool(2) as processes:
        results = [*processes.map(make_slowly, range(4)), *threads.map(make_slowly, range(8))]
    assert set(results) == {"line\n" * 1000}
