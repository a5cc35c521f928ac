"""AMPL .nl files of the optimality conditions, written by Pyomo: for SCIP, Ipopt and their like.

With SOS1 sets (suffixes ``sosno`` and ``ref``) only SCIP reads them right: other readers ignore the
suffixes and return the high point. Products of slack and multiplier are for all of them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bilevelpy.errors import UsageError
from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.naming import printable
from bilevelpy.exporters.python.pyomo_script import pyomo_text

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


class Nl:
    """Any class of functions that the KKT conditions exist for."""

    name: ClassVar[str] = "nl"
    title: ClassVar[str] = "AMPL .nl of the KKT conditions (SOS1 for SCIP, or products)"
    suffix: ClassVar[str] = ".nl"
    consumer: ClassVar[str] = "scip -f {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The file, with the names of rows and columns beside it."""
        try:
            import pyomo.environ  # noqa: F401 - that it is there
        except ImportError:
            raise UsageError("nl needs the package `pyomo`: pip install pyomo") from None
        text, tables, warnings = pyomo_text(bound, options)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model.nl"
            for ending, content in tables.items():
                assert isinstance(content, bytes)
                place.with_suffix(ending).write_bytes(content)
            # The program that the `pyomo` target writes, made of the model's names and numbers.
            space: dict[str, Any] = {"__name__": "model", "__file__": str(place)}
            exec(compile(text, "<model>", "exec"), space)
            model = space["m"]
            _, symbols = model.write(
                str(place), format="nl", io_options={"symbolic_solver_labels": False}
            )
            content = place.read_bytes()
            names = model.solutions.symbol_map[symbols]
        columns: dict[int, str] = {}
        rows: dict[int, str] = {}
        for symbol, component in names.bySymbol.items():
            found = component if hasattr(component, "local_name") else component()
            kind, number = symbol[:1], symbol[1:]
            if kind in "vc" and number.isdigit():
                # Pyomo puts quotes around names with dots.
                (columns if kind == "v" else rows)[int(number)] = found.local_name.strip("'")
        beside = {
            ".col": "".join(f"{printable(columns[k])}\n" for k in sorted(columns)),
            ".row": "".join(f"{printable(rows[k])}\n" for k in sorted(rows)),
        }
        return Files(content, beside, warnings)
