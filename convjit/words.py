"""Words of memory that tell whether an array or a dict changed, many of them compared at once.

A nanobind `mx.array` object keeps a pointer to its descriptor, which changes whenever its contents are replaced. A
CPython dict counts its modifications (PEP 509; gone in Python 3.14). Neither is documented for us, so each is put to
the test when this module is imported, and is not used where it does not do what it should.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

_AFTER_HEADER = 24
"""Where either word lies: an object's header takes 16 bytes, and one other word comes first."""


def _word(value: Any) -> int:
    return ctypes.c_uint64.from_address(id(value) + _AFTER_HEADER).value


def _descriptors_work() -> bool:
    a, other = mx.array([1.0, 2.0]), mx.array([1.0, 2.0])
    held = copy.copy(a)
    before = _word(a)
    if before != _word(held) or before == _word(other):
        return False
    a[0] = 3.0
    return _word(a) != before and _word(held) == before


class _Attributes:
    pass


class _Module(dict[str, Any]):
    pass


def _versions_work() -> bool:
    """Does every way to change a dict or an object's attributes change the version, however often it runs?"""
    plain: dict[str, Any] = {"a": 0, "b": 1}
    module, owner = _Module(a=0, b=1), _Attributes()
    owner.a, owner.b = 0, 1  # pyright: ignore[reportAttributeAccessIssue]
    attributes = vars(owner)
    for number in range(1, 200):  # often, because CPython specialises code that runs often
        for mapping in (plain, module, attributes):
            seen = {_word(mapping)}
            mapping["a"] = number
            seen.add(_word(mapping))
            mapping.update(a=-number)
            seen.add(_word(mapping))
            mapping["b"] = mapping.pop("b")
            seen.add(_word(mapping))
            unread = _word(mapping)
            if len(seen) != 4 or (mapping["a"], len(mapping), _word(mapping)) != (-number, 2, unread):
                return False
        before = _word(attributes)
        owner.a = number  # pyright: ignore[reportAttributeAccessIssue]
        if _word(attributes) == before:
            return False
    return True


HAVE_DESCRIPTORS = _descriptors_work()
HAVE_VERSIONS = _versions_work()


def data_pointer(array: mx.array) -> int:
    """The address of the data of an evaluated array; its own identity where it has no readable buffer."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return id(array)


def descriptor(array: mx.array) -> int:
    """A number that changes whenever the contents of `array` are replaced, as long as the old ones are held.

    Where descriptors cannot be read it is the address of the data, which evaluates the array.
    """
    return _word(array) if HAVE_DESCRIPTORS else data_pointer(array)


Compare = Callable[[Any, Any, int], int]


def _same(addresses: Sequence[int], expected: Sequence[int], count: int) -> bool:
    return [ctypes.c_uint64.from_address(a).value for a in addresses] == list(expected)


_compare: Compare = _same


def compare_by(function: Compare) -> None:
    """Use a C function from now on: (addresses, expected words, their number) -> are all words as expected?"""
    global _compare
    _compare = function


class Words:
    """The words of some arrays and dicts, to be compared with what they were. Its user keeps the objects alive.

    Args:
        arrays: arrays; as their words are expected those of `held`.
        held: copies of the arrays that nobody else has.
        dicts: dicts, as they are now.
    """

    def __init__(self, arrays: Sequence[mx.array], held: Sequence[mx.array], dicts: Sequence[dict[Any, Any]]):
        objects = (*arrays, *dicts)
        self._addresses = (ctypes.c_uint64 * len(objects))(*(id(o) + _AFTER_HEADER for o in objects))
        self._expected = (ctypes.c_uint64 * len(objects))(*map(_word, (*held, *dicts)))
        self._count = len(objects)

    def unchanged(self) -> bool:
        return bool(_compare(self._addresses, self._expected, self._count))
