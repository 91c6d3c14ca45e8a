"""What may have changed since a program was built: arguments, weights, structure, tracers. Runs at every call."""

from __future__ import annotations

import copy
import ctypes
import inspect as python_inspect
import struct
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import getitem, is_
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from convjit.state import Slot, Walk, is_function, is_state, unwrap

# --- arguments -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Arguments:
    """The arguments of one call, taken apart.

    Attributes:
        key: hashable: the structure, each array's shape and dtype, each other value by type and bits.
        arrays: the arrays, in the order in which `key` meets them.
        modules: modules and stateful objects found among the arguments, likewise.
    """

    key: tuple[Any, ...] = ()
    arrays: list[mx.array] = field(default_factory=list[mx.array])
    modules: list[Any] = field(default_factory=list[Any])


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
    if isinstance(value, (list, tuple)):
        return (type(value), *(_key(v, found) for v in value))
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


# --- descriptors ---------------------------------------------------------------------------------------------

_DESCRIPTOR_OFFSET = 24
"""Where a nanobind `mx.array` object keeps the pointer to its descriptor, on CPython's usual object layout."""


def _descriptor_at(array: mx.array) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(id(array) + _DESCRIPTOR_OFFSET)


def _descriptors_work() -> bool:
    """Does the word really follow the array's contents on this interpreter and this MLX?"""
    a, other = mx.array([1.0, 2.0]), mx.array([1.0, 2.0])
    held = copy.copy(a)
    before = _descriptor_at(a).value
    if before != _descriptor_at(held).value or before == _descriptor_at(other).value:
        return False
    a[0] = 3.0
    return _descriptor_at(a).value != before and _descriptor_at(held).value == before


_HAS_DESCRIPTORS = _descriptors_work()


class _DataPointer:
    """Stands in for a descriptor word where those cannot be read: the address of the array's data."""

    def __init__(self, array: mx.array):
        self._array = array

    @property
    def value(self) -> int:
        return data_pointer(self._array)


def descriptor(array: mx.array) -> ctypes.c_uint64 | _DataPointer:
    """A word (`.value`) that changes whenever the contents of `array` are replaced, as long as they are held."""
    return _descriptor_at(array) if _HAS_DESCRIPTORS else _DataPointer(array)


def data_pointer(array: mx.array) -> int:
    """The address of the data of an evaluated array; its own identity where it has no readable buffer."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return id(array)


# --- structure and weights -----------------------------------------------------------------------------------


class Snapshot:
    """The state a program was built from, held so that neither ids nor descriptors can repeat."""

    def __init__(self, walk: Walk):
        self.slots: list[Slot] = walk.slots
        self._containers = [s.container for s in walk.slots]
        self._keys = [s.key for s in walk.slots]
        self.arrays: list[mx.array] = []
        self._held: list[mx.array] = []
        self._words: list[Any] = []
        self._word_values: list[int] = []
        self.hold([s.get() for s in walk.slots])
        self._item_containers = [c for c, _, _ in walk.items]
        self._item_keys = [k for _, k, _ in walk.items]
        self._item_values = [v for _, _, v in walk.items]
        self._sized = [c for c, _ in walk.sizes]
        self._sizes = [n for _, n in walk.sizes]
        self._names = walk.names
        self.path_of = walk.path_of  # holds the walk, and with it all that was visited: no id is used again
        self._captured = [(descriptor(a), descriptor(a).value, a, copy.copy(a)) for _, a in walk.captured]

    def hold(self, arrays: Sequence[mx.array]) -> None:
        """Take these arrays, one a slot, as the state to compare with."""
        self.arrays = list(arrays)
        self._held = [copy.copy(a) for a in self.arrays]
        self._words = [descriptor(a) for a in self.arrays]
        self._word_values = [w.value for w in self._words]

    def same_structure(self) -> bool:
        """Are all containers, attributes and bindings what they were?"""
        if list(map(len, self._sized)) != self._sizes:
            return False
        try:
            same = all(map(is_, map(getitem, self._item_containers, self._item_keys), self._item_values))
            if not same and not self._same_items():
                return False
            return all(_bound(holder, name) is value for holder, name, value in self._names if not _is_array(value))
        except (KeyError, IndexError):
            return False

    def _same_items(self) -> bool:
        for index, (container, key, old) in enumerate(
            zip(self._item_containers, self._item_keys, self._item_values, strict=True)
        ):
            new = container[key]
            if new is old:
                continue
            if not _same_constant(new, old):
                return False
            self._item_values[index] = new
        return True

    def changed_slots(self) -> list[int]:
        """The indices of the slots whose array was replaced or rewritten in place.

        Raises:
            KeyError, IndexError: if a slot is gone.
        """
        now: list[Any] = list(map(getitem, self._containers, self._keys))
        if all(map(is_, now, self.arrays)) and [w.value for w in self._words] == self._word_values:
            return []
        return [
            index
            for index, array in enumerate(now)
            if array is not self.arrays[index] or self._words[index].value != self._word_values[index]
        ]

    def same_data(self, index: int) -> bool:
        """Does a changed slot still hold the same evaluated data (as after `value_and_grad`)?"""
        return data_pointer(self.slots[index].get()) == data_pointer(self._held[index])

    def changed_captured(self) -> list[mx.array]:
        """Bare captured arrays that are not what they were: they stay frozen, but a tracer among them matters."""
        changed = [a for word, value, a, _ in self._captured if word.value != value]
        for holder, name, old in self._names:
            new = _bound(holder, name)
            if _is_array(old) and new is not old and isinstance(new, mx.array):
                changed.append(new)
        return changed


def _same_constant(new: Any, old: Any) -> bool:
    """Are these equal numbers, strings, or tuples of such? `Module.update` replaces tuples by equal ones."""
    if type(new) is tuple and type(old) is tuple:
        return len(new) == len(old) and all(map(_same_constant, new, old))
    if new is old:
        return True
    return isinstance(new, (bool, int, float, str)) and _key(new, Arguments()) == _key(old, Arguments())


def _is_array(value: object) -> bool:
    return isinstance(value, mx.array)


def _bound(holder: Any, name: str) -> object:
    if isinstance(holder, types.CellType):
        try:
            return holder.cell_contents
        except ValueError:
            return None
    return holder.get(name)


# --- tracers -------------------------------------------------------------------------------------------------


class TracerProbe:
    """Is an array a tracer of grad, vmap, jvp, compile or export? 1 us an array, without evaluating it.

    A compiled identity re-enters Python only when its input is a tracer (or when compilation is off, so a hit is
    confirmed by the slow way: a tracer cannot be evaluated).
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self, arrays: Iterable[mx.array]) -> bool:
        return any(map(self._is_tracer, arrays))

    def _is_tracer(self, array: mx.array) -> bool:
        local = self._local
        if not hasattr(local, "identity"):
            local.warm = set()
            local.hit = False
            local.identity = mx.compile(self._identity, shapeless=True)
        kind = (array.ndim, array.dtype)
        if kind not in local.warm:
            local.identity(mx.zeros((1,) * array.ndim, array.dtype))
            local.warm.add(kind)
        local.hit = False
        local.identity(array)
        return local.hit and _refuses_evaluation(array)

    def _identity(self, array: mx.array) -> mx.array:
        self._local.hit = True
        return array


def _refuses_evaluation(array: mx.array) -> bool:
    try:
        mx.async_eval(mx.stop_gradient(array))
    except ValueError:
        return True
    return False


any_tracer: Callable[[Iterable[mx.array]], bool] = TracerProbe()
"""Is there a tracer among these arrays?"""
