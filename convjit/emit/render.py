"""Jinja templates -> text."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convjit.cache import artefact, content_key, find

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.bccache import Bucket

_PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATES = _PACKAGE / "templates" if (_PACKAGE / "templates").is_dir() else _PACKAGE.parent / "templates"
"""The folder of templates: inside the package in a wheel, beside it in a checkout."""


@cache
def _environment() -> Environment:
    import jinja2

    class CompiledTemplates(jinja2.BytecodeCache):
        """Templates as Python code, kept on disk: compiling them takes longer than writing a network's kernels."""

        def load_bytecode(self, bucket: Bucket) -> None:
            if found := find(_key(bucket), ".template"):
                bucket.bytecode_from_string(found.read_bytes())

        def dump_bytecode(self, bucket: Bucket) -> None:
            artefact(_key(bucket), ".template", lambda path: _write(path, bucket.bytecode_to_string()))

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        bytecode_cache=CompiledTemplates(),
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _key(bucket: Bucket) -> str:
    return content_key("template", bucket.key, bucket.checksum, _jinja_version(), sys.version)


@cache
def _jinja_version() -> str:
    return version("jinja2")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def render(template: str, **variables: Any) -> str:
    """The text of `templates/<template>.jinja`, such as "cpu/direct.c", with these variables.

    Raises:
        jinja2.UndefinedError: if the template needs a variable that is not given.
    """
    return _environment().get_template(f"{template}.jinja").render(**variables)
