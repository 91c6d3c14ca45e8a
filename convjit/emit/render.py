"""Jinja templates -> text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATES = _PACKAGE / "templates" if (_PACKAGE / "templates").is_dir() else _PACKAGE.parent / "templates"
"""The folder of templates: inside the package in a wheel, beside it in a checkout."""


@cache
def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **variables: Any) -> str:
    """The text of `templates/<template>.jinja`, such as "cpu/direct.c", with these variables.

    Raises:
        jinja2.UndefinedError: if the template needs a variable that is not given.
    """
    return _environment().get_template(f"{template}.jinja").render(**variables)
