"""Rules of Metal that no host compiler knows: each turned a kernel away on a real Mac, or made it wrong there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

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
    "bfloat": "write bfloat16_t, which MLX defines for every version of Metal",
    **dict.fromkeys(
        ("new", "delete", "virtual", "try", "catch", "throw", "typeid", "dynamic_cast", "goto", "asm", "printf"),
        "not in Metal",
    ),
    **dict.fromkeys(("static", "thread_local"), "variables of a function end with it"),
    **dict.fromkeys(
        ("erf", "erfc", "expm1", "log1p", "cbrt", "hypot", "lgamma", "tgamma", "nearbyint", "fabsf", "expf", "logf"),
        "not in Metal's library",
    ),
}
_HOUSE = {
    "template": "no templates: write numbers into the text",
    "auto": "write the type: with bfloat16_t, a deduced one differs between versions of Metal",
    "class": "no classes",
}
_SPACES = {"device", "constant", "threadgroup", "thread"}
_TYPES = re.compile(r"(?:bool|char|uchar|short|ushort|int|uint|long|ulong|float|half|bfloat16_t|size_t)[234]?$")
_LOOPS = {"for", "while", "do"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one line."""

    line: int
    message: str

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
    for token in tokens:
        if reason := _NOT_IN_METAL.get(token.text) or _HOUSE.get(token.text):
            yield Finding(token.line, f"`{token.text}`: {reason}")


def _literals(tokens: list[_Token]) -> Iterator[Finding]:
    for token in tokens:
        is_hexadecimal = token.text[:2].lower() == "0x"
        is_float = token.kind == "number" and not is_hexadecimal and re.search(r"[.eE]", token.text)
        if is_float and token.text[-1] not in "fh":
            yield Finding(token.line, f"`{token.text}` is a double: write f or h behind it")


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
            yield Finding(token.line, f"`{token.text}` should begin with cj_: it shares a namespace with MLX and Metal")
        if following in ("=", "[", ";") and not _statement_before(tokens, i) & {"constant", "typedef", "using"}:
            yield Finding(token.line, f"`{token.text}`: a variable outside of functions is `constant`")


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
        elif token.text == "{":
            start = i
        elif token.text == "}" and name:
            yield name, tokens[start : i + 1]
            name = None


def _recursion(tokens: list[_Token]) -> Iterator[Finding]:
    for name, body in _functions(tokens):
        for token in body:
            if token.text == name.text:
                yield Finding(token.line, f"`{name.text}` calls itself: Metal has no recursion")


def _lambdas(tokens: list[_Token]) -> Iterator[Finding]:
    for before, token, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if following.text == "[":
            continue  # an attribute
        if token.text == "[" and before.kind != "word" and before.text not in ("]", ")", "["):
            yield Finding(token.line, "a lambda, which Metal does not have")


def _threadgroup_variables(tokens: list[_Token]) -> Iterator[Finding]:
    """They are declared in the outermost block of a kernel."""
    for name, body in _functions(tokens):
        depth = 0
        for i, token in enumerate(body):
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if token.text != "threadgroup" or body[i - 1].text not in ("{", "}", ";"):
                continue
            is_pointer = any(t.text in "*&" for t in body[i : i + 3])
            if not is_pointer and (depth > 1 or not name.text.startswith("custom_kernel_")):
                yield Finding(token.line, "a threadgroup variable outside of a kernel's outermost block")


def _pragmas(tokens: list[_Token]) -> Iterator[Finding]:
    for token, following in pairwise(tokens):
        if "unroll" in token.text and token.kind == "pragma" and following.text not in _LOOPS:
            yield Finding(token.line, "an unroll pragma stands directly before its loop")


def _signature(tokens: list[_Token]) -> Iterator[Finding]:
    """What MLX adds to a signature when it finds a name in the body: always an attribute, never a shape."""
    kernels = [i for i, t in enumerate(tokens) if t.text.startswith("custom_kernel_") and tokens[i + 1].text == "("]
    for start in kernels:
        end = next(i for i in range(start, len(tokens)) if tokens[i].text == "{")
        names = [t.text for t in tokens[start:end]]
        if names.count("[") == 2 * names.count("buffer"):
            yield Finding(tokens[start].line, "no thread attribute is used: MLX's signature may then be malformed")
        for token in tokens[start:end]:
            if re.search(r"_(shape|strides|ndim)$", token.text):
                yield Finding(token.line, f"`{token.text}` became an argument because its name is in the body")


_RULES: tuple[Callable[[list[_Token]], Iterator[Finding]], ...] = (
    _words,
    _literals,
    _pointers,
    _program_scope,
    _recursion,
    _lambdas,
    _threadgroup_variables,
    _pragmas,
    _signature,
)
