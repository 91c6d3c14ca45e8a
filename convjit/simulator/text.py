"""Metal text as C++: what has to be rewritten, and the function that calls the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r"\bkernel\b[^;{}]*?\bvoid\s+(?P<name>\w+)\s*\(")
_INSTANTIATION = re.compile(
    r"\btemplate\s*\[\[\s*host_name\(\s*\"(?P<host>\w+)\"\s*\)\s*\]\][^;()]*?"
    r"(?P<decltype>\bdecltype\s*\()?(?P<call>\w+\s*<[^;(){}]*>)[^;{}]*;"
)
_ATTRIBUTES = re.compile(r"\[\[(?P<what>.*?)\]\]", re.DOTALL)
_ATTRIBUTE_TYPE = re.compile(r"u?(?:int|short)[23]?$")
_META = re.compile(r"_(shape|strides|ndim)$")

_THREADGROUP_VARIABLES = re.compile(
    r"(?P<before>[;{}]\s*|^[ \t]*\#[^\n]*\n\s*)threadgroup\s+"
    r"(?:alignas\s*\([^)]*\)\s*)?(?P<rest>[^;=*&()\[]+(?:[\[=][^;]*)?)(?=;)",
    re.MULTILINE,
)
_FIRST_DECLARATOR = re.compile(r"(?P<type>[\w:\s]+?(?:<[^;]*>)?)\s*\b(?P<declarators>\w+\s*(?:\[[^;]*)?(?:,[^;]*)?)$")
_DECLARATOR = re.compile(r"\s*(?P<name>\w+)\s*(?P<extents>(?:\[[^\]]*\]\s*)*)$")
_PLAIN_LITERAL = re.compile(r"(?<![\w.])(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?![\w.])")
_WAITS = re.compile(r"\b(?:simd|simdgroup|quad|threadgroup_barrier)(?:_\w+)?\s*[(<]")
_THREAD_ATTRIBUTES = (
    "dispatch_quadgroups_per_threadgroup",
    "dispatch_simdgroups_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "grid_origin",
    "grid_size",
    "quadgroup_index_in_threadgroup",
    "quadgroups_per_threadgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "thread_execution_width",
    "thread_index_in_quadgroup",
    "thread_index_in_simdgroup",
    "thread_index_in_threadgroup",
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threadgroups_per_grid",
    "threads_per_grid",
    "threads_per_simdgroup",
    "threads_per_threadgroup",
)


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer argument of a kernel.

    Attributes:
        name: as the kernel calls it.
        role: "input", "output", or what of the input before it MLX tells: "shape", "strides" or "ndim".
        is_constant: does it lie in the address space `constant`, not `device`?
        line: where the kernel declares it.
    """

    name: str
    role: str
    is_constant: bool
    line: int


@dataclass(frozen=True, slots=True)
class HostText:
    """A kernel as C++.

    Attributes:
        source: a complete translation unit.
        buffers: its arguments, in order.
        line: where the kernel begins.
        threads_wait: does it have barriers or collectives, for which threads wait for each other?
    """

    source: str
    buffers: tuple[Buffer, ...]
    line: int
    threads_wait: bool


def without_comments(text: str) -> str:
    """`text` with spaces in place of its comments: lines stay where they are."""
    return _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def kernel_names(text: str) -> list[str]:
    """The kernels of `text`: functions that are no templates, and instances of templates by their host name."""
    code = without_comments(text)
    hosts = [m["host"] for m in _INSTANTIATION.finditer(code)]
    functions = [m["name"] for m in _KERNEL.finditer(code) if not _is_template(code, m.start())]
    return functions + hosts


def only_instance(name: str, text: str) -> str:
    """`text` without the instances of templates that have another host name: lines stay where they are."""
    return _INSTANTIATION.sub(lambda m: m.group() if m["host"] == name else "\n" * m.group().count("\n"), text)


def host_text(name: str, text: str) -> HostText:
    """The kernel `name` of `text` as C++.

    Args:
        name: of a function, or the host name of an instance of a template.
        text: what Metal would compile, from MLX or from a person.

    Raises:
        ValueError: if there is no such kernel, if an argument is of a kind that the simulator does not know, or if a
            threadgroup variable is declared in a way that Metal does not take.
    """
    code = without_comments(text)
    call = next((m["call"] for m in _INSTANTIATION.finditer(code) if m["host"] == name), name)
    function = call.partition("<")[0].strip()
    found = next((m for m in _KERNEL.finditer(code) if m["name"] == function), None)
    if found is None:
        raise ValueError(f"there is no kernel {name!r} in the text; its kernels: {', '.join(kernel_names(text))}")
    buffers: list[Buffer] = []
    arguments: list[str] = []
    for parameter, start in _parameters(code, found.end()):
        line = code.count("\n", 0, start) + 1
        if "*" in _ATTRIBUTES.sub("", parameter) or "&" in _ATTRIBUTES.sub("", parameter):
            buffers.append(_buffer(parameter, line, buffers))
            kind = "reference" if "&" in _ATTRIBUTES.sub("", parameter) else "pointer"
            arguments.append(f"host::{kind}{{buffers[{len(buffers) - 1}]}}")
        else:
            arguments.append(_attribute(parameter, line))
    line = code.count("\n", 0, found.start()) + 1
    code = _in_single_precision(_without_attributes(_without_instantiations(code)))
    waits = _WAITS.search(code) is not None
    return HostText(_source(_place_threadgroup_variables(code), call, arguments), tuple(buffers), line, waits)


def _source(code: str, call: str, arguments: list[str]) -> str:
    return (
        "#include <metal_stdlib>\nusing namespace metal;\n"
        f'#line 1 "kernel.metal"\n{code}\n#line 1 "entry"\n'
        'extern "C" __attribute__((no_sanitize("thread"), no_sanitize("undefined")))\n'
        "void simulator_entry(void* const* buffers, const simulator_thread* where) {\n"
        f"  {call}({', '.join(arguments)});\n}}\n"
        "#if !SIMULATOR_CHECKED\n"
        'extern "C" const simulator_site simulator_sites[1] = {};\n'
        'extern "C" const unsigned long simulator_site_count = 0;\n'
        "#endif\n"
    )


def _is_template(code: str, at: int) -> bool:
    """Is what begins at `at` the declaration of a template?"""
    declaration = re.split(r"[;}]", code[:at])[-1]
    return re.search(r"\btemplate\s*<", declaration) is not None


def _parameters(code: str, start: int) -> Iterator[tuple[str, int]]:
    """The parameters of the list that begins at `start`, each with where it lies."""
    depth, begin = 0, start
    for i in range(start, len(code)):
        if code[i] in "([{<":
            depth += 1
        elif depth > 0 and code[i] in ")]}>":
            depth -= 1
        elif code[i] == ")" or (code[i] == "," and depth == 0):
            if parameter := code[begin:i].strip():
                yield parameter, code.index(parameter, begin)
            begin = i + 1
            if code[i] == ")":
                return


def _buffer(parameter: str, line: int, before: list[Buffer]) -> Buffer:
    if re.search(r"\bthreadgroup\b", parameter):
        raise ValueError(
            f"kernel.metal:{line}: `{' '.join(parameter.split())}`: the simulator has no threadgroup memory that is "
            "sized at launch; declare an array in the kernel"
        )
    declaration = _ATTRIBUTES.sub("", parameter)
    name = re.findall(r"\w+", declaration)[-1]
    is_constant = re.search(r"\bconstant\b", declaration) is not None
    role = "input" if is_constant or re.search(r"\bconst\b", declaration) else "output"
    inputs = {b.name for b in before if b.role == "input"}
    if role == "input" and (meta := _META.search(name)) and name.removesuffix(meta[0]) in inputs:
        role = meta[1]
    return Buffer(name, role, is_constant, line)


def _attribute(parameter: str, line: int) -> str:
    """The argument for a parameter such as `uint3 at [[thread_position_in_grid]]`."""
    kinds = [m["what"].strip() for m in _ATTRIBUTES.finditer(parameter)]
    words = re.findall(r"\w+", _ATTRIBUTES.sub("", parameter))
    if len(words) < 2 or not _ATTRIBUTE_TYPE.match(words[-2]) or not kinds or kinds[0] not in _THREAD_ATTRIBUTES:
        raise ValueError(
            f"kernel.metal:{line}: `{' '.join(parameter.split())}`: an argument of a kernel is a pointer, a reference, "
            f"or one of {', '.join(_THREAD_ATTRIBUTES)}"
        )
    return f"host::attribute<{words[-2]}>::of(where->{kinds[0]})"


def _without_attributes(code: str) -> str:
    return _ATTRIBUTES.sub(lambda m: "\n" * m.group().count("\n"), code)


def _in_single_precision(code: str) -> str:
    """A literal without a suffix is a float in Metal, where there is no double."""
    return _PLAIN_LITERAL.sub(r"\g<0>f", code)


def _without_instantiations(code: str) -> str:
    """The call of the kernel instantiates its template just as well."""
    return _INSTANTIATION.sub(lambda m: "\n" * m.group().count("\n"), code)


def _place_threadgroup_variables(code: str) -> str:
    """Threadgroup variables as references to storage that a threadgroup's threads share."""
    number = 0

    def place(statement: re.Match[str]) -> str:
        nonlocal number
        found = _FIRST_DECLARATOR.match(statement["rest"])
        declarators = [_DECLARATOR.match(d) for d in _split(found["declarators"])] if found else []
        placed: list[str] = []
        for declarator in declarators:
            if found is None or declarator is None:
                break
            name = declarator["name"]
            placed.append(
                f"typedef {found['type']} {name}_storage{declarator['extents']}; "
                f"{name}_storage& {name} = *({name}_storage*)simulator_threadgroup_memory("
                f'{number}, sizeof({name}_storage), sizeof({found["type"]}), "{name}")'
            )
            number += 1
        if not placed or len(placed) < len(declarators):
            line = code.count("\n", 0, statement.start("rest")) + 1
            raise ValueError(
                f"kernel.metal:{line}: `threadgroup {statement['rest']};`: a threadgroup variable is declared as "
                "`threadgroup T name[size];`, and has no initialiser"
            )
        return statement["before"] + "; ".join(placed)

    return _THREADGROUP_VARIABLES.sub(place, code)


def _split(declarators: str) -> Iterator[str]:
    """`a[f(1, 2)], b` at the commas that part declarators."""
    depth, begin = 0, 0
    for i, mark in enumerate(declarators):
        depth += (mark in "([<") - (mark in ")]>")
        if mark == "," and depth == 0:
            yield declarators[begin:i]
            begin = i + 1
    yield declarators[begin:]
