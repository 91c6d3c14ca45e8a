"""All of these tests share one new cache folder, and know when a compiled function ran as plain MLX after all."""

import mlx.core as mx
import pytest

import convjit
from convjit.execution import entry
from convjit.execution.quick import QuickCalls


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("CONVJIT_DISABLE", raising=False)
        convjit.enable()
        yield


@pytest.fixture(autouse=True)
def seed():
    mx.random.seed(7)


@pytest.fixture(autouse=True)
def quick_calls_at_once(monkeypatch: pytest.MonkeyPatch):
    """Second calls already run without Python, as third ones do by themselves."""
    after = QuickCalls.after

    def at_once(calls: QuickCalls, args):
        after(calls, args)
        return after(calls, args)

    monkeypatch.setattr(QuickCalls, "after", at_once)


@pytest.fixture
def runs(monkeypatch):
    """The programs that ran: a list that grows."""
    ran, results = [], entry.Entry.results

    def counted(self, *args):
        ran.append(self)
        return results(self, *args)

    monkeypatch.setattr(entry.Entry, "results", counted)
    return ran
