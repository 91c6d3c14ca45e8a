"""Rules of Metal that no host compiler knows: each turned a kernel away on a real Mac, or made it wrong there.

Beside them, rules of the house: what Metal takes, but what differs between its versions, collides with names of MLX, or
cannot be checked. Kernels that convjit writes keep both; `Finding.house` tells them apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile

from convjit.simulator.text import without_comments

_TOKEN = re.compile(
    r"""
      (?P<number>0[xX][0-9a-fA-F]+\w* | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\w*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<pragma>\#[^\n]*)
    | (?P<mark>::|->|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^<>=!]=|\S)
    """,
    re.VERBOSE,
)

_NOT_IN_METAL = {
    "double": "Metal has no double",
    "std": "Metal has no std::",
    "simdgroup_async_copy": "no longer in Metal's library",
    "thread_local": "variables of a function end with it",
    **dict.fromkeys(
        ("new", "delete", "virtual", "try", "catch", "throw", "typeid", "dynamic_cast", "goto", "asm", "printf"),
        "not in Metal",
    ),
    **dict.fromkeys(
        ("erf", "erfc", "expm1", "cbrt", "lgamma", "tgamma", "nearbyint", "fabsf", "expf", "logf", "sqrtf", "powf"),
        "not in Metal's library",
    ),
}
_HOUSE = {
    "template": "no templates: write numbers into the text",
    "auto": "write the type: with bfloat16_t, a deduced one differs between versions of Metal",
    "class": "no classes",
    "bfloat": "write bfloat16_t, which MLX defines for every version of Metal",
    **dict.fromkeys(("log1p", "hypot"), "not in Metal's library, and not in every version of MLX's"),
}
_RESERVED = {
    *("vertex", "fragment", "kernel", "device", "constant", "thread", "threadgroup", "threadgroup_imageblock"),
    *("ray_data", "object_data", "half", "bfloat", "uchar", "ushort", "uint", "ulong", "metal", "as_type"),
}
_MAX_BUFFERS = 31
_SPACES = {"device", "constant", "threadgroup", "thread"}
_TYPES = re.compile(r"(?:bool|char|uchar|short|ushort|int|uint|long|ulong|float|half|bfloat16_t|size_t)[234]?$")
_LOOPS = {"for", "while", "do"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


_START = _Token("mark", ";", 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one line.

    Attributes:
        line: in the kernel's text, from 1.
        message: which rule, and often what to write instead.
        house: is it a rule of convjit's own, and the kernel still valid Metal?
    """

    line: int
    message: str
    house: bool = False

    def __str__(self) -> str:
        return f"kernel.metal:{self.line}: {self.message}"


def lint(text: str) -> list[Finding]:
    """What is wrong with `text`, one kernel as MLX hands it to Metal, in the order of its lines."""
    code = without_comments(text)
    tokens = [_Token(m.lastgroup or "", m.group(), code.count("\n", 0, m.start()) + 1) for m in _TOKEN.finditer(code)]
    findings = [
        Finding(text.count("\n", 0, m.start()) + 1, f"{m.group()!r} is not ASCII")
        for m in re.finditer(r"[^\n -~]", text)
    ]
    for rule in _RULES:
        findings += rule(tokens)
    return sorted(findings, key=lambda f: f.line)


def _words(tokens: list[_Token]) -> Iterator[Finding]:
    for before, token in zip([_START, *tokens], tokens, strict=False):
        if token.text == "delete" and before.text == "=":
            continue
        if reason := _NOT_IN_METAL.get(token.text):
            yield Finding(token.line, f"`{token.text}`: {reason}")
        elif reason := _HOUSE.get(token.text):
            yield Finding(token.line, f"`{token.text}`: {reason}", house=True)


def _names(tokens: list[_Token]) -> Iterator[Finding]:
    for kind, name, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        is_declared = _TYPES.match(kind.text) and following.text in ("=", ";", ",", "[", ")")
        if is_declared and name.text in _RESERVED:
            yield Finding(name.line, f"`{name.text}` is a reserved word")


def _literals(tokens: list[_Token]) -> Iterator[Finding]:
    for token in tokens:
        is_hexadecimal = token.text[:2].lower() == "0x"
        is_float = token.kind == "number" and not is_hexadecimal and re.search(r"[.eE]", token.text)
        if is_float and token.text[-1] not in "fFhH":
            yield Finding(token.line, f"`{token.text}` is a double: write f or h behind it", house=True)


def _static_variables(tokens: list[_Token]) -> Iterator[Finding]:
    for i, token in enumerate(tokens):
        if token.text != "static":
            continue
        declaration = list(takewhile(lambda t: t.text not in ("(", "=", ";", "{"), tokens[i:]))
        is_function = i + len(declaration) < len(tokens) and tokens[i + len(declaration)].text == "("
        if not is_function and "constant" not in [t.text for t in declaration]:
            yield Finding(token.line, "`static`: variables of a function end with it")


def _constant_variables(tokens: list[_Token]) -> Iterator[Finding]:
    for _, body in _functions(tokens):
        for i, token in enumerate(body):
            if token.text != "constant" or body[i - 1].text not in ("{", "}", ";", "const", "constexpr"):
                continue
            if not {"*", "&"} & {t.text for t in takewhile(lambda t: t.text not in ("=", ";"), body[i:])}:
                yield Finding(token.line, "a `constant` variable inside of a function: they stand outside")


def _pointers(tokens: list[_Token]) -> Iterator[Finding]:
    """`T* p` and `T& r` name an address space; a product of two values has no type on its left."""
    for i, token in enumerate(tokens[1:], 1):
        if token.text not in ("*", "&") or not _TYPES.match(tokens[i - 1].text):
            continue
        before: list[str] = []
        while len(before) < i and (previous := tokens[i - 1 - len(before)].text) not in "(),;{}":
            before.append(previous)
        if not _SPACES & set(before):
            yield Finding(token.line, f"`{tokens[i - 1].text}{token.text}` without an address space")


def _program_scope(tokens: list[_Token]) -> Iterator[Finding]:
    """Outside of functions: `constant` variables only, and names that cannot collide with MLX's or Apple's."""
    for i, token in _at_depth_zero(tokens):
        following = tokens[i + 1].text if i + 1 < len(tokens) else ""
        is_name = token.kind == "word" and tokens[i - 1].kind == "word" and following in ("(", "=", "[", ";", "{")
        if not is_name or token.text in _SPACES:
            continue
        if not token.text.startswith(("cj_", "custom_kernel_")):
            message = f"`{token.text}` should begin with cj_: it shares a namespace with MLX and Metal"
            yield Finding(token.line, message, house=True)
        statement = _statement_before(tokens, i)
        if following not in ("=", "[", ";") or statement & {"typedef", "using", "struct"}:
            continue
        if "constant" not in statement:
            yield Finding(token.line, f"`{token.text}`: a variable outside of functions is `constant`")
        elif "constexpr" not in statement:
            message = f"`{token.text}`: write `constant constexpr`, so that its value must be a constant"
            yield Finding(token.line, message, house=True)


def _at_depth_zero(tokens: list[_Token]) -> Iterator[tuple[int, _Token]]:
    depth = 0
    for i, token in enumerate(tokens):
        if token.text in ("}", ")", "]"):
            depth -= 1
        if depth == 0 and i > 0:
            yield i, token
        if token.text in ("{", "(", "["):
            depth += 1


def _statement_before(tokens: list[_Token], i: int) -> set[str]:
    words: set[str] = set()
    while i > 0 and tokens[i - 1].text not in (";", "}"):
        i -= 1
        words.add(tokens[i].text)
    return words


def _functions(tokens: list[_Token]) -> Iterator[tuple[_Token, list[_Token]]]:
    """Every function's name, and its tokens from the first brace to the last."""
    name: _Token | None = None
    start = 0
    for i, token in _at_depth_zero(tokens):
        if token.kind == "word" and i + 1 < len(tokens) and tokens[i + 1].text == "(":
            name = token
        elif token.text == ";":
            name = None
        elif token.text == "{":
            start = i
        elif token.text == "}" and name:
            yield name, tokens[start : i + 1]
            name = None


def _recursion(tokens: list[_Token]) -> Iterator[Finding]:
    """Of functions that exist once: of overloads, only types tell which one is called."""
    functions = list(_functions(tokens))
    count = Counter(name.text for name, _ in functions)
    calls = {n.text: {t.text for t in body if count[t.text] == 1} for n, body in functions if count[n.text] == 1}
    for name, _ in functions:
        reached: set[str] = set()
        remaining = set(calls.get(name.text, ()))
        while remaining:
            reached |= remaining
            remaining = {c for called in remaining for c in calls[called]} - reached
        if name.text in reached:
            yield Finding(name.line, f"`{name.text}` calls itself: Metal has no recursion")


def _lambdas(tokens: list[_Token]) -> Iterator[Finding]:
    for before, token, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if following.text == "[":
            continue  # an attribute
        if token.text == "[" and before.kind != "word" and before.text not in ("]", ")", "["):
            yield Finding(token.line, "a lambda, which Metal does not have")


def _kernels(tokens: list[_Token]) -> set[str]:
    """The functions that are declared as `[[kernel]] void name`, or as `kernel void name`."""
    names: set[str] = set()
    is_kernel = False
    for before, token in pairwise(tokens):
        is_kernel = (is_kernel or before.text == "kernel") and token.text not in (";", "{", "}")
        if is_kernel and before.text == "void":
            names.add(token.text)
    return names


def _threadgroup_variables(tokens: list[_Token]) -> Iterator[Finding]:
    """They are declared in the outermost block of a kernel, each alone."""
    kernels = _kernels(tokens)
    for name, body in _functions(tokens):
        depth = 0
        for i, token in enumerate(body):
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if token.text != "threadgroup" or body[i - 1].text not in ("{", "}", ";"):
                continue
            declaration = [t.text for t in takewhile(lambda t: t.text != ";", body[i:])]
            if {"*", "&"} & set(takewhile(lambda text: text not in ("[", "="), declaration)):
                continue
            if depth > 1 or name.text not in kernels:
                yield Finding(token.line, "a threadgroup variable outside of a kernel's outermost block")
            if _has_several(declaration):
                yield Finding(token.line, "several threadgroup variables in one declaration: one each", house=True)


def _has_several(declaration: list[str]) -> bool:
    depth = 0
    for text in declaration:
        depth += {"<": 1, "[": 1, "{": 1, "(": 1, ">": -1, "]": -1, "}": -1, ")": -1}.get(text, 0)
        if text == "," and depth == 0:
            return True
    return False


def _vectors(tokens: list[_Token]) -> Iterator[Finding]:
    for kind, mark, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if kind.text == "vec" and mark.text == "<":
            yield Finding(kind.line, "`vec<...>`: write its short name, as float4", house=True)
        is_type_of_three = kind.text.endswith("3") and _TYPES.match(kind.text)
        if is_type_of_three and mark.text == "*" and following.text in (")", ">"):
            message = f"a cast to `{kind.text}*`: it takes the room of four; packed_{kind.text} takes that of three"
            yield Finding(kind.line, message, house=True)


def _barriers(tokens: list[_Token]) -> Iterator[Finding]:
    for i, token in enumerate(tokens):
        if token.text == "threadgroup_barrier" and "mem_none" in [t.text for t in tokens[i + 1 : i + 7]]:
            yield Finding(token.line, "a threadgroup barrier with mem_none orders no memory", house=True)


def _macros(tokens: list[_Token]) -> Iterator[Finding]:
    for token in tokens:
        macro = re.match(r"#\s*define\s+(\w+)", token.text)
        if macro and not macro[1].lower().startswith("cj_"):
            yield Finding(
                token.line, f"the macro `{macro[1]}` should begin with CJ_: it changes all that follows", house=True
            )


def _pragmas(tokens: list[_Token]) -> Iterator[Finding]:
    for token, following in pairwise(tokens):
        if "unroll" in token.text and token.kind == "pragma" and following.text not in _LOOPS:
            yield Finding(token.line, "an unroll pragma stands directly before its loop")


def _signature(tokens: list[_Token]) -> Iterator[Finding]:
    """What MLX makes of names that it finds in the body: always an attribute; a shape only where it is asked for."""
    kernels = [i for i, t in enumerate(tokens) if t.text.startswith("custom_kernel_") and tokens[i + 1].text == "("]
    for start in kernels:
        end = next(i for i in range(start, len(tokens)) if tokens[i].text == "{")
        names = [t.text for t in tokens[start:end]]
        buffers = names.count("buffer")
        if buffers > _MAX_BUFFERS:
            yield Finding(tokens[start].line, f"{buffers} buffers: a kernel has at most {_MAX_BUFFERS}")
        if names.count("[") == 2 * buffers:
            message = "no thread attribute is used: MLX's signature may then be malformed"
            yield Finding(tokens[start].line, message, house=True)
        for token in tokens[start:end]:
            if re.search(r"_(shape|strides|ndim)$", token.text) and token.text != "input_shape":
                message = f"`{token.text}` became an argument because its name is in the body"
                yield Finding(token.line, message, house=True)


_RULES: tuple[Callable[[list[_Token]], Iterator[Finding]], ...] = (
    _words,
    _names,
    _literals,
    _static_variables,
    _constant_variables,
    _pointers,
    _program_scope,
    _recursion,
    _lambdas,
    _threadgroup_variables,
    _vectors,
    _barriers,
    _macros,
    _pragmas,
    _signature,
)
