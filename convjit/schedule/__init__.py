"""A schedule: which template writes a kernel, with which tile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """A template's name and its choices, in the template's own words: a frozen value, printable in the IR.

    Attributes:
        template: the file under `templates/`, such as "cpu/direct.c" or "metal/direct.metal".
        choices: named numbers or words, sorted by name: tile sizes, splits.
    """

    template: str
    choices: tuple[tuple[str, int | str], ...] = ()

    def __getitem__(self, name: str) -> int | str:
        return dict(self.choices)[name]

    def number(self, name: str) -> int:
        """A choice that is a number."""
        return int(self[name])

    def is_set(self, name: str) -> bool:
        """Is a choice 1? One that the template does not have, or that this schedule leaves out, is not."""
        return (name, 1) in self.choices

    def in_words(self) -> str:
        """As `explain` and reports show it: `metal/direct.metal channels=4 lanes=32 pixels=4`."""
        return " ".join([self.template, *(f"{name}={value}" for name, value in self.choices)])
