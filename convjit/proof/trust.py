"""No kernel is trusted before it has proven itself on this machine.

When a program is built, each kernel that is new here is proven (`convjit.proof`). The verdict is kept on disk, by the
kernel's text, the device, the system's build, the versions, and the code that proves and runs kernels. A kernel that
fails leaves a reproduction bundle and is never run again: the backend's next smaller schedule takes its place, and
where there is none, plain MLX.

A driver may take the whole process down with it. So a file says that a proof is under way. If its process is gone, a
user may have killed it, so the kernel is tried once more; if that process is gone, too, it is taken for the cause.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convjit import proof
from convjit.backends import Backend
from convjit.kernel import AnyKernel
from convjit.proof import Verdict
from convjit.reporting.report import REPRODUCE
from convjit.schedule import Schedule
from convjit.storage import cache, sources
from convjit.storage.environment import convjit_version

_DIED = Verdict(error="two processes that tried it here ended without a verdict")


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule that may be used, and why it is not the backend's first choice; "" if it is."""

    schedule: Schedule
    note: str


_failures: dict[str, str] = {}
"""What is known in this process: key -> why a kernel is not used, or "" if it is right."""
_keys: dict[str, str] = {}


def choose(backend: Backend, kernel: AnyKernel, measured: Schedule | None = None) -> Choice | str:
    """The schedule measured to be the fastest, else the backend's first choice; where that has failed here, the largest
    smaller one that has not; a reason if none is left."""
    first = choice = measured or backend.schedule(kernel)
    failures: dict[Schedule, str] = {}
    while backend.needs_proof and isinstance(choice, Schedule):
        failure = _known_failure(backend, kernel, choice)
        if not failure:
            break
        failures[choice] = failure
        choice = backend.smaller(kernel, choice)
        if choice is None or choice in failures:
            choice = _summary(failures)
    if not isinstance(choice, Schedule):
        return choice
    return Choice(choice, "" if choice == first else f"smaller schedule, because of {_summary(failures)}")


def _summary(failures: dict[Schedule, str]) -> str:
    """What the first schedule did wrong, and how many more did."""
    first, *others = failures
    smaller = f" (and {len(others)} smaller ones)" if others else ""
    return f"{first.template}{smaller}: {failures[first]}"


def prove(
    backend: Backend, work: Sequence[tuple[str, AnyKernel, Schedule]], progress: Callable[[int, int], None]
) -> bool:
    """Prove the kernels that are new here, each once; returns whether all are right: `choose` knows the rest.

    Args:
        backend: where they run.
        work: name, kernel, schedule.
        progress: called with the numbers of kernels done and in all.
    """
    all_right = True
    new = {_key(backend, kernel, schedule): (layer, kernel, schedule) for layer, kernel, schedule in work}
    for done, (layer, kernel, schedule) in enumerate(new.values(), 1):
        failure = _known_failure(backend, kernel, schedule)
        if failure is None:
            failure = _try(backend, layer, kernel, schedule)
        all_right &= not failure
        progress(done, len(new))
    return all_right


def _key(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> str:
    words = repr((backend.name, kernel, schedule))  # as text: 0.0 and -0.0 among constants compare equal
    if words not in _keys:
        shape = repr(proof.for_proof(kernel, schedule).operand_shapes)
        identity = _identity(backend, kernel, schedule)
        where = (backend.name, backend.fingerprint(), convjit_version())
        code = sources.digest(sources.PACKAGE / "proof", sources.PACKAGE / "backends")
        _keys[words] = cache.content_key("proof", *where, code, shape, identity)
    return _keys[words]


def _identity(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> str:
    try:
        return backend.identity(kernel, schedule)
    except Exception as e:  # a template's own mistake: the proof fails with it, and says so
        return repr(e)


def _known_failure(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> str | None:
    """Why the kernel failed, "" if it is right, None if nobody knows: this process, the disk, or two that died."""
    key = _key(backend, kernel, schedule)
    if key in _failures:
        return _failures[key]
    if found := cache.find(key, ".proof"):
        _failures[key] = json.loads(found.read_text())["failure"]
        return _failures[key]
    return _conclude(backend, "", kernel, schedule, _DIED) if _died_twice(key) else None


def _try(backend: Backend, layer: str, kernel: AnyKernel, schedule: Schedule) -> str:
    small = proof.for_proof(kernel, schedule)
    with _trial(_key(backend, kernel, schedule)):
        verdict = proof.prove(small, schedule, proof.runner(backend, small, schedule))
    return _conclude(backend, layer, kernel, schedule, verdict)


def _conclude(backend: Backend, layer: str, kernel: AnyKernel, schedule: Schedule, verdict: Verdict) -> str:
    """Remember a verdict, on disk if it is lasting; write the bundle of a kernel that failed."""
    key, failure = _key(backend, kernel, schedule), ""
    if not verdict.is_right:
        from convjit.proof import bundle  # rarely needed, and not cheap

        folder = bundle.write(backend, layer, proof.for_proof(kernel, schedule), schedule, verdict)
        failure = f"{verdict}" + (f"; reproduce with: {REPRODUCE} {shlex.quote(str(folder))}" if folder else "")
    _failures[key] = failure
    if verdict.is_lasting:
        cache.artefact(key, ".proof", lambda path: _write(path, failure))
    return failure


def _write(path: Path, failure: str) -> None:
    path.write_text(json.dumps({"failure": failure}) + "\n")


def _trials(key: str) -> Path:
    return cache.folder() / key[:2] / key


@contextlib.contextmanager
def _trial(key: str) -> Generator[None]:
    """While inside, a file tells other processes that this one is trying the kernel."""
    mark = _trials(key) / f"trying.{platform.node()}.{os.getpid()}"
    with contextlib.suppress(OSError):
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def _died_twice(key: str) -> bool:
    """Have processes of this computer ended while they tried the kernel, and not only once?

    Those found at the same time count as one: a job of several processes is killed as a whole. Their marks become one
    file, which tells the next that there was a first.
    """
    marks = _trials(key).glob(f"trying.{platform.node()}.*")
    dead = [m for m in marks if not _is_alive(int(m.name.rpartition(".")[2]))]
    first = _trials(key) / f"died.{platform.node()}"
    is_second = bool(dead) and first.exists()
    for mark in dead:
        with contextlib.suppress(OSError):  # another process was faster
            mark.replace(first)
    return is_second


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
