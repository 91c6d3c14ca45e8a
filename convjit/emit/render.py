"""Jinja templates -> text."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convjit.storage.cache import artefact, content_key, find
from convjit.storage.sources import TEMPLATES

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.bccache import Bucket


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
    import jinja2

    return content_key("template", bucket.key, bucket.checksum, jinja2.__version__, sys.version)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def render(template: str, **variables: Any) -> str:
    """The text of `templates/<template>.jinja`, such as "cpu/direct.c", with these variables.

    Raises:
        jinja2.UndefinedError: if the template needs a variable that is not given.
    """
    return _environment().get_template(f"{template}.jinja").render(**variables)
