"""Words of memory that tell whether an array or a dict changed.

A nanobind `mx.array` object keeps a pointer to its descriptor, which changes whenever its contents are replaced. A
CPython dict counts its modifications (PEP 509; gone in Python 3.14). Neither is documented for us, so each is put to
the test when this module is imported, and is not used where it does not do what it should.
"""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import mlx.core as mx

AFTER_HEADER = 24
"""Where either word lies: an object's header takes 16 bytes, and one other word comes first."""


def word(value: Any) -> int:
    """The word of an array or a dict."""
    return ctypes.c_uint64.from_address(id(value) + AFTER_HEADER).value


def _descriptors_work() -> bool:
    a, other = mx.array([1.0, 2.0]), mx.array([1.0, 2.0])
    held = copy.copy(a)
    before = word(a)
    if before != word(held) or before == word(other):
        return False
    a[0] = 3.0
    return word(a) != before and word(held) == before


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
            seen = {word(mapping)}
            mapping["a"] = number
            seen.add(word(mapping))
            mapping.update(a=-number)
            seen.add(word(mapping))
            mapping["b"] = mapping.pop("b")
            seen.add(word(mapping))
            unread = word(mapping)
            if len(seen) != 4 or (mapping["a"], len(mapping), word(mapping)) != (-number, 2, unread):
                return False
        before = word(attributes)
        owner.a = number  # pyright: ignore[reportAttributeAccessIssue]
        if word(attributes) == before:
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
    return word(array) if HAVE_DESCRIPTORS else data_pointer(array)
