"""What may have changed since a program was built: arguments, weights, structure. Runs at every call."""

from __future__ import annotations

import copy
import inspect as python_inspect
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.guards.state import Slot, attributes_of, child_path, is_function, is_record, is_state, unwrap
from convjit.guards.walk import Walk
from convjit.guards.watch import Absent, Binding, Watch, Watched
from convjit.guards.words import HAVE_DESCRIPTORS, HAVE_VERSIONS, data_pointer, descriptor, word

# --- arguments -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Arguments:
    """The arguments of one call, taken apart.

    Attributes:
        key: hashable: the structure, each array's shape and dtype, each other value by type and bits.
        arrays: the arrays, in the order in which `key` meets them.
        modules: modules and stateful objects found among the arguments, likewise.
        records: the classes of data classes that were taken apart.
    """

    key: tuple[Any, ...] = ()
    arrays: list[mx.array] = field(default_factory=list[mx.array])
    modules: list[Any] = field(default_factory=list[Any])
    records: list[type] = field(default_factory=list[type])


def read_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Take the arguments of a call apart.

    Raises:
        TypeError: for an argument that is neither an array, a tree of arrays, a module, nor hashable.
    """
    found = Arguments()
    parts = [_key(value, found) for value in args]
    for name in sorted(kwargs):
        parts.append(name)
        parts.append(_key(kwargs[name], found))
    found.key = (len(args), *parts)
    return found


def _key(value: Any, found: Arguments) -> Any:
    if isinstance(value, mx.array):
        found.arrays.append(value)
        return (mx.array, value.shape, value.dtype)
    if value is None or isinstance(value, (bool, int, str)):
        return (type(value), value)
    if isinstance(value, float):
        return (type(value), struct.pack("<d", value))
    if isinstance(value, complex):
        return (type(value), struct.pack("<dd", value.real, value.imag))
    if not isinstance(value, (list, tuple)) and is_state(value):
        found.modules.append(value)
        return (type(value), value if is_function(value) else id(value))
    if isinstance(value, dict):
        return (type(value), *((k, _key(v, found)) for k, v in value.items()))
    if is_record(value):
        found.records.append(type(value))
        return (type(value), *((k, _key(v, found)) for k, v in attributes_of(value).items()))
    if isinstance(value, (list, tuple)):
        return (type(value), *(_key(v, found) for v in value))
    if isinstance(value, Iterator):
        raise TypeError(
            f"convjit.compile: an argument of type {type(value).__name__} can be read only once; pass a list or a tuple"
        )
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"convjit.compile: an argument of type {type(value).__name__} is neither an array, a list, tuple or dict "
            f"of arrays, a module, nor hashable; pass arrays, or constants such as numbers and strings"
        ) from None
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):  # a NumPy scalar
        return (type(value), value.tobytes())
    return (type(value), value)


def argument_paths(args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names for the arrays and for the modules of `read_arguments`, such as "x" or "batch.image".

    Args:
        args, kwargs: the arguments of the call.
        names: the names of the positional parameters. A module that comes first and alone needs no name.
    """
    arrays: list[str] = []
    modules: list[str] = []

    def visit(value: Any, path: str) -> None:
        if isinstance(value, mx.array):
            arrays.append(path)
        elif is_state(value):
            modules.append(path)
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{path}.{key}")
        elif is_record(value):
            visit(attributes_of(value), path)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                visit(item, f"{path}.{index}")

    for index, value in enumerate(args):
        visit(value, names[index] if index < len(names) else f"argument{index}")
    for name in sorted(kwargs):
        visit(kwargs[name], name)
    first_and_alone = len(modules) == 1 and bool(args) and isinstance(args[0], nn.Module)
    return arrays, [""] if first_and_alone else modules


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The names of a callable's parameters, or none where Python cannot tell."""
    try:
        return list(python_inspect.signature(unwrap(function)).parameters)
    except (TypeError, ValueError):
        return []


# --- structure and weights -----------------------------------------------------------------------------------


class Snapshot:
    """The state a program was built from, held so that neither ids nor descriptors can repeat.

    Args:
        walk: all of it.
        slots: those of its slots to look at; by default all.
    """

    def __init__(self, walk: Walk, slots: list[Slot] | None = None):
        self.slots = walk.slots if slots is None else slots
        self.path_of = walk.path_of  # holds the walk, and with it all that was visited: no id is used again
        self.arrays: list[mx.array] = []
        self._held: list[mx.array] = []
        self._items = walk.items
        whole = set(map(id, walk.whole))
        self._read = [(attributes, names) for attributes, names in walk.read if id(attributes) not in whole]
        self._absent = [(attributes, names - attributes.keys()) for attributes, names in self._read]
        self._versions: dict[int, int] = {}
        self._restless: set[int] = set()
        read = {id(attributes) for attributes, _ in self._read}
        self._sizes = [(c, n) for c, n in walk.sizes if id(c) not in read]
        self._sets = walk.sets
        self._bindings = [Binding(*name) for name in (*walk.names, *walk.functions)]
        self._captured = [(copy.copy(a), a) for _, a in walk.captured]
        entered = (*(s.container for s in self.slots), *(c for c, _, _ in walk.items), *(a for a, _ in self._read))
        containers = {id(c): c for c in entered}
        self._dicts = [c for c in containers.values() if isinstance(c, dict)]
        self._lists = [(c, list(c)) for c in containers.values() if isinstance(c, list)]
        self._only_sized = [(c, n) for c, n in self._sizes if id(c) not in containers]
        self.watch: Watch | None = None
        self.hold([s.get() for s in self.slots], self.copies())

    def copies(self) -> list[mx.array]:
        """Copies of what the slots hold now, which no write in place reaches."""
        return [copy.copy(s.get()) for s in self.slots]

    def hold(self, arrays: list[mx.array], held: list[mx.array]) -> None:
        """Take these arrays, one a slot, as the state to compare with; `held` are copies of them made before."""
        self.arrays, self._held = arrays, held
        self._lists = [(c, list(c)) for c, _ in self._lists]
        if not self.is_quick:
            return
        frozen, captured = [a for a, _ in self._captured], [a for _, a in self._captured]
        present, absent = self._restless_attributes()
        watched = Watched(self._lists, self._only_sized, self._sets, [*self._bindings, *present], absent)
        dicts = [d for d in self._dicts if id(d) not in self._restless]
        watch = Watch([*arrays, *captured], [*held, *frozen], dicts, watched)
        # Only now: had a slot changed before the versions of the dicts were read, nobody would ever see it.
        current = all(s.get() is a for s, a in zip(self.slots, arrays, strict=True)) and self.same_structure()
        self.watch = watch if current else None

    def _restless_attributes(self) -> tuple[list[Binding], list[Absent]]:
        """Of objects whose attributes changed since the last time, though none that counts did: those that count."""
        versions = {id(attributes): word(attributes) for attributes, _ in self._read}
        self._restless |= {k for k, version in versions.items() if self._versions.get(k, version) != version}
        self._versions = versions
        present: list[Binding] = []
        absent: list[Absent] = []
        for attributes, names in self._read:
            if id(attributes) in self._restless:
                now = dict(attributes)
                present += [Binding(attributes, name, now[name]) for name in names & now.keys()]
                absent += [Absent(attributes, name) for name in names - now.keys()]
        return present, absent

    @property
    def is_quick(self) -> bool:
        """Can `unchanged` say yes on this interpreter?"""
        return HAVE_DESCRIPTORS and HAVE_VERSIONS

    def unchanged(self) -> bool:
        """Is everything what it was? A quick yes for most calls; after a no, the other methods tell what changed."""
        watch = self.watch  # once: another thread may take over new weights
        return watch is not None and watch.unchanged()

    def same_structure(self) -> bool:
        """Are all containers, attributes and bindings what they were?"""
        try:
            return (
                all(len(c) == n for c, n in self._sizes)
                and all(names.isdisjoint(attributes) for attributes, names in self._absent)
                and all(eq(s, elements) for s, elements in self._sets)
                and all(c[k] is old or _same_constant(c[k], old) for c, k, old in self._items)
                and all(b.current() is b.value for b in self._bindings if not _is_array(b.value))
            )
        except (KeyError, IndexError):
            return False

    def change(self) -> str:
        """What became of the first part of the state that is not what it was, for a message."""
        for container, key, old in self._items:
            new = _found(container, key)
            if new is not old and not _same_constant(new, old):
                is_short = isinstance(old, (bool, int, float, str)) and isinstance(new, (bool, int, float, str))
                what = f"{old!r} became {new!r}" if is_short else "it became another object"
                return f"'{child_path(self.path_of(container), key)}': {what}"
        for container, count in self._sizes:
            if len(container) != count:
                return f"the length of '{self.path_of(container)}': {count} became {len(container)}"
        for slot, old in zip(self.slots, self.arrays, strict=True):
            new = _found(slot.container, slot.key)
            if not isinstance(new, mx.array):
                return f"'{slot.path}': an array became another object"
            if (new.shape, new.dtype) != (old.shape, old.dtype):
                return f"'{slot.path}': {old.shape} {old.dtype} became {new.shape} {new.dtype}"
        return "something that it reads"

    def changed_slots(self, arrays: Sequence[mx.array]) -> list[int]:
        """The indices of the slots whose array was replaced or rewritten in place; `arrays` are what they hold now."""
        return [
            number
            for number, (now, old, held) in enumerate(zip(arrays, self.arrays, self._held, strict=True))
            if now is not old or descriptor(old) != descriptor(held)
        ]

    def same_data(self, index: int, array: mx.array) -> bool:
        """Is `array` the same evaluated data that the slot held (as after `value_and_grad`)?"""
        return data_pointer(array) == data_pointer(self._held[index])

    def changed_captured(self) -> list[mx.array]:
        """Bare captured arrays that are not what they were: they stay frozen, but a tracer among them matters."""
        changed = [array for frozen, array in self._captured if descriptor(array) != descriptor(frozen)]
        for binding in self._bindings:
            new = binding.current()
            if _is_array(binding.value) and new is not binding.value and isinstance(new, mx.array):
                changed.append(new)
        return changed


def _found(container: Any, key: Any) -> Any:
    try:
        return container[key]
    except (KeyError, IndexError):
        return None


def _same_constant(new: Any, old: Any) -> bool:
    """Are these equal numbers, strings, or tuples of such? `Module.update` replaces tuples by equal ones."""
    if type(new) is tuple and type(old) is tuple:
        return len(new) == len(old) and all(map(_same_constant, new, old))
    if new is old:
        return True
    return isinstance(new, (bool, int, float, str)) and _key(new, Arguments()) == _key(old, Arguments())


def _is_array(value: object) -> bool:
    return isinstance(value, mx.array)
