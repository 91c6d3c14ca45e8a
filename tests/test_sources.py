"""What is kept on disk is kept by the code that it depends on."""

from __future__ import annotations

import pytest

from convjit.backends import registry
from convjit.geometry import Geometry, plain_window
from convjit.kernel import Kernel, identity_epilogue
from convjit.proof import trust
from convjit.storage import sources


def test_any_change_of_a_file_changes_the_digest(tmp_path):
    (tmp_path / "inner").mkdir()
    files = [tmp_path / "a.py", tmp_path / "inner" / "b.jinja"]
    seen = set()

    def look():
        sources.digest.cache_clear()
        seen.add(sources.digest(tmp_path))
        return len(seen)

    for file in files:
        file.write_text("x = 1\n")
    assert look() == 1 and look() == 1
    files[1].write_text("x = 2\n")
    assert look() == 2
    files[1].rename(tmp_path / "inner" / "c.jinja")
    assert look() == 3
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("made")
    assert look() == 3


@pytest.mark.parametrize("folder", ["proof", "backends", "schedule", "emit"])
def test_the_folders_are_there(folder: str):
    assert any((sources.PACKAGE / folder).glob("*.py")) and any(sources.TEMPLATES.rglob("*.jinja"))


def test_a_verdict_of_other_rules_does_not_count(monkeypatch):
    geometry = Geometry.of_shapes((1, 5, 3), (2, 1, 3), plain_window(1))
    kernel = Kernel(geometry, "f32", (), identity_epilogue("f32"), ("f32",))
    backend = registry.get("cpu")
    keys = set()
    for digest in (sources.digest, lambda *folders: "changed"):
        monkeypatch.setattr(sources, "digest", digest)
        monkeypatch.setattr(trust, "_keys", {})
        keys.add(trust._key(backend, kernel, backend.schedule(kernel)))
    assert len(keys) == 2
