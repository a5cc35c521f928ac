"""What HiGHS would refuse without a place, leave out without a word, or read in a way of its own.

Both scans go over the lines of a file once, before it is read.
"""

from __future__ import annotations

import re

import numpy as np

from bilevelpy.importers.faults import Text, quoted
from bilevelpy.system.storage import written_number

SECTIONS = [
    "NAME",
    "ROWS",
    "COLUMNS",
    "RHS",
    "RANGES",
    "BOUNDS",
    "ENDATA",
    "OBJSENSE",
    "OBJSENSE:",
    "QUADOBJ",
    "QMATRIX",
    "OBJSECT",
]
FOREIGN = {
    "SOS": "SOS sets",
    "SOS1": "SOS sets",
    "SOS2": "SOS sets",
    "INDICATORS": "indicator constraints",
    "QCMATRIX": "quadratic rows",
    "QSECTION": "quadratic rows",
    "CSECTION": "conic constraints",
}
BOUNDS = ["LO", "UP", "FX", "FR", "MI", "PL", "BV", "LI", "UI", "SC"]
WITHOUT_VALUE = ("FR", "MI", "PL", "BV")
# Which end of a domain a kind of bound sets.
ENDS = {
    "lower": ("LO", "LI", "MI", "FX", "FR", "BV"),
    "upper": ("UP", "UI", "PL", "FX", "FR", "BV"),
}
NO_LOWER = "write both bounds: readers disagree on what an upper one below zero means alone"


def scan(text: Text) -> bool:
    """Check the lines of an MPS file.

    Returns
    -------
    bool
        Whether the objective is maximised. HiGHS overlooks words other than MAX behind OBJSENSE.

    Raises
    ------
    ModelError
        With the first line that is malformed, means what the language does not have, or is read
        differently by different programs.
    """
    found = _Mps(text)
    found.run()
    return found.maximize


class _Mps:
    def __init__(self, text: Text) -> None:
        self.text = text
        self.rows: set[str] = set()
        self.columns: set[str] = set()
        self.column = ""
        self.maximize = False
        # rows that the present column has entries in
        self.entered: set[str] = set()
        # columns with a lower bound, or none
        self.lowered: set[str] = set()
        # what RHS, RANGES and BOUNDS have said of a row or an end of a column
        self.said: dict[tuple[str, str], float | str] = {}

    def run(self) -> None:
        section = ""
        for at, line in enumerate(self.text.lines, 1):
            if not line.strip() or line.startswith("*"):
                continue
            words = line.split()
            if not line[0].isspace():
                section = self._section(at, words)
                if section == "ENDATA":
                    return
            else:
                self._line(at, section, words)
        raise self.text.bad(self.text.last, "the file ends without ENDATA")

    def _section(self, at: int, words: list[str]) -> str:
        section = words[0].upper()
        if section in FOREIGN:
            raise self.text.foreign(at, FOREIGN[section], "the language has no such rows")
        if section not in SECTIONS:
            raise self.text.bad(at, f"`{words[0]}` is no section of MPS files")
        if section.startswith("OBJSENSE") and len(words) > 1:
            self._sense(at, words[1])
        return section

    def _line(self, at: int, section: str, words: list[str]) -> None:
        if section == "ROWS":
            if len(words) != 2 or words[0].upper() not in ("N", "L", "G", "E"):
                raise self.text.bad(at, "a row is its kind (N, L, G, E) and its name, one word")
            if words[1] in self.rows:
                raise self.text.bad(at, f"row `{words[1]}` is listed twice")
            self.rows.add(words[1])
        elif section == "COLUMNS" and "'MARKER'" not in words:
            self._entry(at, words)
        elif section in ("RHS", "RANGES"):
            found = words[1:] if len(words) % 2 else words
            for row, value in zip(self._values(at, found), found[1::2], strict=True):
                self._say(at, f"{section} of row {quoted(row)}", section, row, float(value))
        elif section == "BOUNDS":
            self._bound(at, words)
        elif section.startswith("OBJSENSE"):
            self._sense(at, words[0])

    def _sense(self, at: int, word: str) -> None:
        if word.upper() not in ("MIN", "MAX", "MINIMIZE", "MAXIMIZE"):
            raise self.text.bad(at, f"`{word}` is neither MIN nor MAX")
        self.maximize = word.upper().startswith("MAX")

    def _entry(self, at: int, words: list[str]) -> None:
        if words[0] != self.column:
            if words[0] in self.columns:
                raise self.text.bad(at, f"the lines of column `{words[0]}` do not stand together")
            self.column = words[0]
            self.columns.add(words[0])
            self.entered = set()
        for row in self._values(at, words[1:], finite=True):
            if row in self.entered:
                raise self.text.bad(at, f"column `{words[0]}` has a second entry in row `{row}`")
            self.entered.add(row)

    def _values(self, at: int, words: list[str], finite: bool = False) -> list[str]:
        """Rows and numbers in turn; the rows."""
        if not words or len(words) % 2:
            raise self.text.bad(at, "names of rows and numbers take turns")
        for row, value in zip(words[::2], words[1::2], strict=True):
            if row not in self.rows:
                raise self.text.bad(at, f"there is no row {quoted(row)}")
            number = self._value(at, value)
            if finite and not np.isfinite(number):
                raise self.text.bad(at, f"{quoted(value)} is no finite number")
        return words[::2]

    def _bound(self, at: int, words: list[str]) -> None:
        kind = words[0].upper()
        if kind not in BOUNDS:
            raise self.text.bad(at, f"`{words[0]}` is no kind of bound")
        if kind == "SC":
            raise self.text.foreign(at, "a semi-continuous column", "no domain of the language")
        # The name of the set of bounds may be absent.
        value = None if kind in WITHOUT_VALUE else self._value(at, words[-1])
        named = words[1:] if value is None else words[1:-1]
        column = next((w for w in (named[1:2] or named[:1]) if w in self.columns), None)
        if column is None:
            column = next((w for w in named if w in self.columns), None)
        if column is None:
            raise self.text.bad(at, f"there is no column `{named[-1] if named else ''}`")
        if kind == "UP" and value is not None and value < 0 and column not in self.lowered:
            raise self.text.bad(
                at, f"column `{column}` has an upper bound below zero, and no lower one before it",
                hint="write MI or LO first: to some readers the lower bound is 0, to others there "
                "is none",
            )  # fmt: skip
        if kind in ("LO", "MI", "FR", "FX", "LI"):
            self.lowered.add(column)
        for end in ("lower", "upper"):
            if kind in ENDS[end]:
                bound = kind if value is None else value
                self._say(at, f"{end} bound of column {quoted(column)}", end, column, bound)

    def _say(self, at: int, what: str, kind: str, name: str, value: float | str) -> None:
        """Refuse a second value for the same thing: some readers take the first, others the
        last.
        """
        if self.said.setdefault((kind, name), value) != value:
            raise self.text.bad(at, f"a second {what}, other than the first")

    def _value(self, at: int, word: str) -> float:
        value = written_number(word)
        if value is None:
            raise self.text.bad(at, f"{quoted(word)} is not a number")
        return value


# What an LP file may hold that cannot be taken over, by the line that begins it.
FOREIGN_LP = {
    "sos": "SOS sets",
    "sos1": "SOS sets",
    "sos2": "SOS sets",
    "semi": "a semi-continuous column",
    "semis": "a semi-continuous column",
    "semi-continuous": "a semi-continuous column",
    "pwlobj": "a piecewise linear objective",
    "lazy constraints": "lazy constraints",
    "user cuts": "user cuts",
    "general constraints": "general constraints",
}
ROWS_BEGIN = ("subject to", "such that", "st", "s.t.", "st.")
WHOLE_BEGIN = ("general", "generals", "gen", "integer", "integers", "int", "binary", "binaries",
               "bin")  # fmt: skip
ROWS_END = ("bounds", "bound", *WHOLE_BEGIN, "end")
SIGNS = re.compile(r"[\s+\-*/^<>=\[\]]+")
COEFFICIENT = re.compile(r"[\d.]+")
RELATION = re.compile(r"<=|>=|=<|=>|<|>|=")
LABEL = re.compile(r"[^\s:]+\s*:")
PIECE = re.compile(
    r"(?P<relation>[<>=]+)|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<sign>[+-])"
    r"|(?P<name>[^\s<>=+\-*/^]+)"
)


def scan_lp(text: Text) -> None:
    """Find what HiGHS would leave out without a word: sections, the end of a cut file, and names of
    whole numbers that stand nowhere else (HiGHS makes them columns of their own).
    """
    last, rows, whole = "", False, False
    listed: dict[str, int] = {}
    known: set[str] = set()
    lone = _Lone(text)
    for at, line in enumerate(text.lines, 1):
        content = line.partition("\\")[0].strip()
        if not content:
            continue
        last = content.lower()
        if last in FOREIGN_LP:
            raise text.foreign(at, FOREIGN_LP[last], "the language has no such part")
        if last in ROWS_END:
            whole = last in WHOLE_BEGIN
        elif whole:
            listed.update((word, at) for word in content.split() if word not in listed)
        else:
            known.update(_names(content))
        rows = (rows or last.startswith(ROWS_BEGIN)) and last not in ROWS_END
        if "->" in content:
            raise text.foreign(at, "an indicator constraint", "the language has no such rows")
        if rows and "[" in content and "]" in content:
            raise text.foreign(at, "a quadratic row", "only objectives may have squares")
        if rows and len(RELATION.findall(content.rpartition(":")[2])) > 1:
            raise text.bad(at, "a row with two ends", hint="write it as two rows")
        if rows:
            lone.read(at, content)
    if last != "end":
        raise text.bad(text.last, "the file ends without End")
    for name, at in listed.items():
        if name not in known:
            raise text.bad(at, f"{quoted(name)} stands in no row, bound or objective")


class _Lone:
    """Refuses numbers without a variable among the terms of a row: HiGHS drops them."""

    def __init__(self, text: Text) -> None:
        self.text = text
        # the line of a number that no name has followed yet
        self.number: int | None = None
        self.right = False

    def read(self, at: int, content: str) -> None:
        """The pieces of a line; rows may go on over several."""
        for piece in PIECE.finditer(LABEL.sub(" ", content)):
            kind = piece.lastgroup
            if self.number is not None and kind in ("sign", "relation"):
                raise self.text.bad(
                    self.number, "a number without a variable among the terms of a row",
                    hint="take it to the right-hand side",
                )  # fmt: skip
            if kind == "relation":
                self.right = True
            elif kind == "number" and not self.right:
                self.number = at if float(piece[0]) else None
            elif kind != "sign":
                self.number, self.right = None, False


def _names(content: str) -> set[str]:
    """The words of a line without the name of its row; a number may stand close to a name."""
    words = set(SIGNS.split(content.rpartition(":")[2]))
    return words | {COEFFICIENT.sub("", word) for word in words}


def line_with(text: Text, name: str) -> int:
    """The last line that holds a name beside others, which is where its bounds stand."""
    lines = ((at, line.split()) for at, line in enumerate(text.lines, 1))
    found = [at for at, words in lines if len(words) > 1 and name in words]
    return found[-1] if found else text.last
