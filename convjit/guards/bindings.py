"""What the code of a Python function takes from outside: variables of enclosing functions, globals, attributes."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any


def bindings(function: types.FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The names a function takes from outside: (name, the cell or the globals dict, the value)."""
    yield from cells(function)
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__, function.__globals__[name]


def cells(function: types.FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The variables of enclosing functions that a function takes: (name, cell, value)."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> frozenset[str]:
    """The globals that a function's code, or that of a function inside it, reads or writes."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
    return frozenset(names).union(*map(_global_names, _inner_code(code)))


@functools.lru_cache(maxsize=4096)
def rebinds(code: types.CodeType) -> bool:
    """Does the code assign a global, or a variable of an enclosing function?"""
    for i in dis.get_instructions(code):
        if i.opname == "STORE_GLOBAL" or (i.opname == "STORE_DEREF" and i.argval in code.co_freevars):
            return True
    return any(map(rebinds, _inner_code(code)))


@functools.lru_cache(maxsize=4096)
def attribute_names(code: types.CodeType) -> frozenset[str]:
    """The attributes, of anything, that a function's code, or that of a function inside it, reads or writes."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_ATTR", "_METHOD"))}
    return frozenset(names).union(*map(attribute_names, _inner_code(code)))


def _inner_code(code: types.CodeType) -> list[types.CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
