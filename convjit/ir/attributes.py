"""Attributes and types of the `conv` dialect: frozen values of `geometry` and `schedule`, printable and parseable."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from convjit.geometry import Window
from convjit.schedule import Schedule


@irdl_attr_definition
class WindowAttr(Data[Window]):
    """`#conv.window<strides = [2, 2], pad = [3, 3] : [3, 3], dilation = [1, 1], input_dilation = [1, 1], groups = 1>`

    A trailing `, flip` mirrors the kernel.
    """

    name = "conv.window"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Window:
        def key(name: str) -> None:
            parser.parse_keyword(name)
            parser.parse_punctuation("=")

        def ints() -> tuple[int, ...]:
            return tuple(
                parser.parse_comma_separated_list(
                    parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
                )
            )

        with parser.in_angle_brackets():
            key("strides")
            strides = ints()
            parser.parse_punctuation(",")
            key("pad")
            pad_lo = ints()
            parser.parse_punctuation(":")
            pad_hi = ints()
            parser.parse_punctuation(",")
            key("dilation")
            dilation = ints()
            parser.parse_punctuation(",")
            key("input_dilation")
            input_dilation = ints()
            parser.parse_punctuation(",")
            key("groups")
            groups = parser.parse_integer(allow_boolean=False, allow_negative=False)
            flip = parser.parse_optional_punctuation(",") is not None
            if flip:
                parser.parse_keyword("flip")
        return Window(strides, pad_lo, pad_hi, dilation, input_dilation, groups, flip)

    def verify(self) -> None:
        w = self.data
        if {len(v) for v in (w.pad_lo, w.pad_hi, w.kernel_dilation, w.input_dilation)} != {w.rank}:
            raise VerifyException(f"expected one number for each of {w.rank} spatial axes in every list of {w}")

    def print_parameter(self, printer: Printer) -> None:
        w = self.data
        with printer.in_angle_brackets():
            printer.print_string(
                f"strides = {list(w.strides)}, pad = {list(w.pad_lo)} : {list(w.pad_hi)}, "
                f"dilation = {list(w.kernel_dilation)}, input_dilation = {list(w.input_dilation)}, "
                f"groups = {w.groups}{', flip' if w.flip else ''}"
            )


@irdl_attr_definition
class ScheduleAttr(Data[Schedule]):
    """`#conv.schedule<"cpu/direct.c", split = "rows", tile_width = 14>`"""

    name = "conv.schedule"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Schedule:
        choices: list[tuple[str, int | str]] = []
        with parser.in_angle_brackets():
            template = parser.parse_str_literal()
            while parser.parse_optional_punctuation(","):
                name = parser.parse_identifier()
                parser.parse_punctuation("=")
                value = parser.parse_optional_str_literal()
                choices.append((name, parser.parse_integer() if value is None else value))
        return Schedule(template, tuple(choices))

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f'"{self.data.template}"')
            for name, value in self.data.choices:
                printer.print_string(f", {name} = " + (f'"{value}"' if isinstance(value, str) else str(value)))


@irdl_attr_definition
class NumbersAttr(Data[tuple[int, ...]]):
    """`#conv.numbers<[8, 32, 32, 16]>`"""

    name = "conv.numbers"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[int, ...]:
        with parser.in_angle_brackets():
            return tuple(
                parser.parse_comma_separated_list(
                    parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
                )
            )

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(list(self.data)))


@irdl_attr_definition
class PackedType(ParametrizedAttribute, TypeAttribute):
    """`!conv.packed<tensor<64x3x3x64xf32>>`: a weight in the order in which its kernel reads it."""

    name = "conv.packed"

    weight: TensorType
