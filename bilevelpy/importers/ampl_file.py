"""The part of AMPL in which the bilevel library BASBLib is written, as statements with their lines.

Sets that are ranges or lists, params (numbers, or tables in a ``data`` section), variables with
bounds, one objective, and labelled constraints; expressions with ``+ - * / ^``, functions of one
argument, and ``sum``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lark
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from bilevelpy.importers.faults import Text

GRAMMAR = r"""
start: statement* data?
statement: set | param | var | objective | constraint | _HEAD | end | ";"
set: _SET NAME ("=" | ":=") set_value ";"
?set_value: range | "{" range "}" -> braced | "{" number ("," number)* "}" -> listed
range: expr ".." expr
param: _PARAM NAME index? (_COMMA? attribute)* ";"
var: _VAR NAME index? (_COMMA? attribute)* ";"
?attribute: ">=" expr -> at_least
    | "<=" expr -> at_most
    | ("=" | ":=" | _DEFAULT) expr -> equals
    | _INTEGER -> integer
    | _BINARY -> binary
index: "{" (NAME _IN)? (NAME | range) "}"
objective: SENSE NAME ":" expr ";"
constraint: NAME index? ":" expr (relation expr)+ ";"
!relation: "<=" | ">=" | "==" | "="
end: (_END | _SOLVE) ";"
data: _DATA ";" table* end?
table: _PARAM NAME ":=" number+ ";"

?expr: term | expr "+" term -> add | expr "-" term -> sub
?term: product
?product: unary | product "*" unary -> mul | product "/" unary -> div
?unary: power | "-" unary -> neg | "+" unary | _SUM index product -> total
?power: atom | atom ("^" | "**") unary -> pow
?atom: NUMBER -> number
    | NAME -> name
    | NAME "[" expr "]" -> entry
    | NAME "(" expr ("," expr)* ")" -> call
    | "(" expr ")"
number: NUMBER | "-" NUMBER -> minus

SENSE.2: /(minimize|maximize)\b/
_HEAD.2: /subject\s+to/ | "s.t."
_COMMA: ","
_SET.2: /set\b/
_PARAM.2: /param\b/
_VAR.2: /var\b/
_IN.2: /in\b/
_DEFAULT.2: /default\b/
_INTEGER.2: /integer\b/
_BINARY.2: /binary\b/
_END.2: /end\b/
_SOLVE.2: /solve\b/
_DATA.2: /data\b/
_SUM.2: /sum\b/
NAME: /[A-Za-z_]\w*/
NUMBER: /(\d+(\.(?!\.)\d*)?|\.\d+)([eE][+-]?\d+)?/
COMMENT: /#[^\n]*/
%ignore COMMENT
%ignore /\/\*(.|\n)*?\*\//
%ignore /\s+/
"""


@dataclass(frozen=True, slots=True)
class Range:
    """The whole numbers from ``low`` to ``high``, or those of a list."""

    members: tuple[int, ...]

    @property
    def from_one(self) -> bool:
        """Whether it is 1, 2, ..., n."""
        return self.members == tuple(range(1, len(self.members) + 1))


@lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    return lark.Lark(GRAMMAR, parser="lalr", maybe_placeholders=False, propagate_positions=True)


def parse(text: Text) -> lark.Tree[Any]:
    """The statements of a file.

    Raises
    ------
    ModelError
        With the line of what is no such statement.
    """
    content = text.source.text
    try:
        return _parser().parse(content)
    except UnexpectedEOF:
        raise text.bad(text.last, "the file ends in the middle of a statement") from None
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        shown = content[at : at + 1]
        reason = f"`{shown}` is no sign of the part of AMPL that is read here"
        raise text.bad(int(error.line), reason) from None
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise text.bad(text.last, "the file ends in the middle of a statement") from None
        line = error.token.line or text.last
        raise text.bad(int(line), f"`{error.token}` is not expected here") from None
    except UnexpectedInput:
        raise text.bad(1, "this is no statement") from None


def line_of(tree: lark.Tree[Any]) -> int:
    """The line on which a tree begins."""
    return int(getattr(tree.meta, "line", 1))
