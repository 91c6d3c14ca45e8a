"""A compiled function: which of its programs runs a call, and what runs where none can."""

from __future__ import annotations

import functools
import os
import sys
import threading
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from convjit.errors import CompileError, FallbackWarning, RecaptureWarning, RecordWritten
from convjit.guards.guard import Arguments, read_arguments
from convjit.guards.keys import difference, without_identities
from convjit.ir.replay import UnknownPrimitive
from convjit.options import Options
from convjit.reporting.report import REPRODUCE
from convjit.tracing.tracers import any_tracer, can_evaluate, capturing

if TYPE_CHECKING:
    from convjit.backends import QuickCall
    from convjit.execution.entry import Entry
    from convjit.tracing.call_site import CallSite

_MAX_SIGNATURES = 256
"""Signatures kept by one compiled function; the oldest one goes."""
_MAX_STATES = 8
"""Programs kept for one signature: structures and plain attributes of its modules, such as `training`; and signatures
that differ only in which objects, other than modules, are arguments: each keeps its object's arrays alive."""

_MANY_CAPTURES = 32
"""Of one compiled function: something changes in every call."""

_told_failures: set[str] = set()
"""The bundles that warnings have named."""

_disabled = os.environ.get("CONVJIT_DISABLE", "") not in ("", "0")


def disable() -> None:
    """Make every compiled function run as plain MLX, until `enable`. `CONVJIT_DISABLE=1` starts this way."""
    global _disabled
    _disabled = True


def enable() -> None:
    """Undo `disable`."""
    global _disabled
    _disabled = False


class Compiled:
    """What `compile` returns. Attributes that it does not have itself are those of the original."""

    def __init__(self, function: Callable[..., Any], options: Options):
        self._function = function
        self._options = options
        self._entries: OrderedDict[tuple[Any, ...], list[Entry]] = OrderedDict()
        self._lock = threading.RLock()
        self._unsettled: set[tuple[Any, ...]] = set()
        self._last: Entry | None = None
        self._quick: QuickCall | None = None
        self._warned = False
        self._captures = 0
        if not isinstance(function, nn.Module):
            functools.update_wrapper(self, function)

    @property
    def __convjit_plain__(self) -> Callable[..., Any]:
        return self._function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_function" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._function, name)

    def __getitem__(self, key: Any) -> Any:
        """A parameter or a layer of a model, as `optimizer.update(fast, gradients)` looks it up."""
        return self._function[key]  # pyright: ignore[reportIndexIssue]

    def __contains__(self, key: Any) -> bool:
        return key in self._function  # pyright: ignore[reportOperatorIssue]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._function)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes of a model are written where they are read: `fast.conv = other` replaces a layer of the model."""
        if not name.startswith("_") and isinstance(self._function, nn.Module):
            setattr(self._function, name, value)
        else:
            object.__setattr__(self, name, value)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """A copy, or what is unpickled, compiles anew; a function is found by its name, as in Python."""
        if isinstance(self._function, types.FunctionType):
            return self._function.__qualname__
        return Compiled, (self._function, self._options)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"convjit.compile({self._name})"

    @property
    def _name(self) -> str:
        return getattr(self._function, "__qualname__", type(self._function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _disabled or capturing():
            return self._function(*args, **kwargs)
        quick = self._quick
        if quick is not None and not kwargs:
            result = quick(args)
            if result is not None:
                return result
        while True:
            try:
                return self._call(args, kwargs)
            except RecordWritten:
                continue

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = read_arguments(args, kwargs)
        key = (self._options.backend or _default_backend(), arguments.key)
        if any_tracer(arguments.arrays):
            return self._run_transformed(key, arguments, args, kwargs)
        entry, tracers = self._find(key)
        if entry is None and not tracers:
            entry, tracers = self._add_plain(key, arguments, args, kwargs)
            if entry is not None and entry.is_doubtful:
                return self._run_doubtful(key, entry, args, kwargs)
        if tracers:
            return self._run_transformed(key, arguments, args, kwargs)
        program = entry.program if entry else None  # once: another thread may give it up
        if entry is None or program is None:
            return self._function(*args, **kwargs)
        try:
            result = entry.run(program, arguments.arrays)
            self._quick = self._quick_after(entry, args, kwargs)
            return result
        except UnknownPrimitive as e:  # a replay that only its first run can refuse; no state is written yet
            entry.give_up(str(e))
            self._report(entry)
            return self._function(*args, **kwargs)

    def _quick_after(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> QuickCall | None:
        """What may do the next calls. It does not look at MLX's default device."""
        if kwargs or not (self._options.backend or _is_cpu_alone()):
            return None
        return entry.quick_calls.after(args)

    def _forget(self) -> None:
        """Compile every signature anew when it is called next."""
        with self._lock:
            self._entries.clear()
            self._quick = None

    def _find(self, key: tuple[Any, ...]) -> tuple[Entry | None, bool]:
        """The entry whose state is what it was, refreshed for new weights; and whether a tracer is among those."""
        for entry in self._entries.get(key, ()):
            match entry.refresh():
                case "ready":
                    return entry, False
                case "tracer":
                    return None, True
                case _:
                    continue
        return None, False

    def _add_plain(
        self, key: tuple[Any, ...], arguments: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Entry | None, bool]:
        from convjit.execution import entry as entries

        if self._find(_gradient_key(key, arguments))[0] is not None:  # quicker than a walk that finds the tracers
            return None, True
        return self._add(key, arguments, args, kwargs, lambda call: entries.make(call, self._options, key[0]))

    def _add(
        self,
        key: tuple[Any, ...],
        arguments: Arguments,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        make: Callable[[CallSite], Entry | None],
    ) -> tuple[Entry | None, bool]:
        """Capture and compile a new signature; no entry if plain MLX is to run this once, because of state that a first
        call makes, or of a tracer that was found on the way, which the second result tells."""
        from convjit.tracing.call_site import CallSite

        with self._lock:
            entry, tracers = self._find(key)
            if entry is not None or tracers:
                return entry, tracers
            entry = make(CallSite.of(self._name, self._function, args, kwargs, arguments))
            if entry is None:
                return None, True
            if self._may_settle(key, entry):
                return None, False
            if not entry.is_doubtful:
                self._keep(key, entry)
            return entry, False

    def _may_settle(self, key: tuple[Any, ...], entry: Entry) -> bool:
        """Did the function change the structure of its state for the first time? Then plain MLX runs it, and the next
        call is compiled."""
        first = entry.is_unsettled and key not in self._unsettled
        if first:
            self._unsettled.add(key)
        else:
            self._unsettled.discard(key)
        return first

    def _keep(self, key: tuple[Any, ...], entry: Entry) -> None:
        with self._lock:
            same_key = self._entries.setdefault(key, [])
            same_key.insert(0, entry)
            del same_key[_MAX_STATES:]
            kind = without_identities(key)
            alike = [k for k in self._entries if without_identities(k) == kind]
            for oldest in alike[:-_MAX_STATES]:
                del self._entries[oldest]
            while len(self._entries) > _MAX_SIGNATURES:
                self._entries.popitem(last=False)
            self._last = entry
            self._captures += 1
            if self._captures == _MANY_CAPTURES and self._options.fallback == "warn":
                self._tell_of_captures(key)
        self._report(entry)

    def _tell_of_captures(self, key: tuple[Any, ...]) -> None:
        """Warn that a capture, which takes a hundred calls' time, is no exception."""
        others = [other for other in self._entries if other != key and other[0] == key[0]]
        if len(self._entries[key]) > 1 or not others:
            what = self._entries[key][1].snapshot.change()
        else:
            what = f"an argument: {difference(others[-1], key)}"
        warnings.warn(
            f"convjit: {self._name}: captured {_MANY_CAPTURES} times, which takes much longer than a call each time. "
            f"What changed last was {what}. Numbers that change in every call should be arrays, and shapes few",
            RecaptureWarning,
            stacklevel=_stacklevel(),
        )

    def _run_transformed(
        self, key: tuple[Any, ...], arguments: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run under a transformation of MLX: programs for a gradient, else the function itself."""
        from convjit.gradients import gradient
        from convjit.gradients.transforms import differentiable_convolutions

        entry = None
        if (backend := key[0]) in gradient.BACKENDS and can_evaluate(arguments.arrays):
            key = _gradient_key(key, arguments)
            entry, _ = self._add(
                *(key, arguments, args, kwargs), lambda call: gradient.make(call, self._options, backend, self._report)
            )
        if isinstance(entry, gradient.GradientEntry) and entry.program is not None:
            return entry.differentiated(arguments.arrays)
        with differentiable_convolutions():
            result = self._function(*args, **kwargs)
        if entry is not None and entry.is_doubtful:
            self._keep(key, entry)
        return result

    def _run_doubtful(self, key: tuple[Any, ...], entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function itself, with its convolutions checked: most likely it raises the user's own error again."""
        from convjit.tracing.checked import checked_convolutions

        with checked_convolutions(entry.snapshot.path_of):
            result = self._function(*args, **kwargs)
        self._keep(key, entry)
        return result

    def _report(self, entry: Entry) -> None:
        if entry.reasons and self._options.fallback == "error":
            self._forget()
            raise CompileError(f"convjit: {self._name}: " + "; ".join(entry.reasons))
        if self._options.fallback != "warn" or self._warned:
            return
        if news := [sentence for sentence in (*entry.reasons, *entry.notes) if _is_news(sentence)]:
            self._warned = True
            warnings.warn(f"convjit: {self._name}: " + "; ".join(news), FallbackWarning, stacklevel=_stacklevel())


def compiled_of(fast: Any) -> Compiled:
    """The compiled function behind a user's object: a function, a bound method, or an instance of a compiled class.

    Raises:
        TypeError: if there is none.
    """
    bound = getattr(fast, "__func__", fast)
    for candidate in (bound, vars(type(bound)).get("__call__"), getattr(bound, "__dict__", {}).get("__call__")):
        if isinstance(candidate, Compiled):
            return candidate
    raise TypeError(f"not a compiled function: {fast!r}; pass what convjit.compile returned")


def _is_news(sentence: str) -> bool:
    """That a kernel failed is told once a process, however many functions have it."""
    _, command, folder = sentence.partition(REPRODUCE)
    known = folder in _told_failures
    if command:
        _told_failures.add(folder)
    return not known


def _stacklevel() -> int:
    """For a warning of the caller: how far up the stack the first function is that is none of this file's."""
    level, frame = 1, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level


def _gradient_key(key: tuple[Any, ...], arguments: Arguments) -> tuple[Any, ...]:
    """The key of a signature that is differentiated by those of its arrays that are tracers, and by slots."""
    return "gradient", *key, *(any_tracer([array]) for array in arguments.arrays)


def _is_cpu_alone() -> bool:
    return not mx.is_available(mx.Device(mx.gpu))


def _default_backend() -> str | None:
    """The backend for MLX's default device, read at every call; None for a GPU that is not Metal."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else None
