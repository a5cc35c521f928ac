"""``%%blv`` for notebooks: the text of a cell becomes a model. Needs the extra ``notebook``.

``%load_ext bilevelpy`` registers it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import ModelError, UsageError
from bilevelpy.loading import parse

if TYPE_CHECKING:
    from bilevelpy.model import Model

_HELP = "%%blv [NAME] [--data NAME]: NAME is the variable that gets the model"


def model_of_cell(line: str, cell: str, variables: dict[str, Any]) -> Model:
    """The model of a cell, bound to the variables of the notebook that have the names of its data.

    Parameters
    ----------
    line
        ``NAME`` to keep the model as, and ``--data NAME`` for a mapping, a data frame or a path.
    cell
        The text of the model.
    variables
        The notebook's variables; the model is added as NAME (by default its own name).

    Raises
    ------
    UsageError
        The line is not understood.
    ModelError
        The model or its data is wrong.
    """
    name, source = _options(line)
    data: Any = None
    if source is not None:
        data = variables.get(source, source)
    given = {} if source is not None else _by_name(cell, variables)
    model = parse(cell, data=data, **given)
    variables[name or model.name] = model
    return model


def _options(line: str) -> tuple[str | None, str | None]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"`{line}` is not understood: {error}; {_HELP}") from None
    name = data = None
    while words:
        word = words.pop(0)
        if word == "--data":
            if not words:
                raise UsageError(f"`--data` needs a name or a path; {_HELP}")
            data = words.pop(0)
        elif name is None and word.isidentifier():
            name = word
        else:
            raise UsageError(f"`{word}` is not understood; {_HELP}")
    return name, data


def _by_name(cell: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Variables of the notebook that the model declares as data and gives no default."""
    from bilevelpy.diagnostics import Source
    from bilevelpy.sema import check

    program = check(Source("<text>", cell)).program
    if program is None:
        return {}
    wanted = [p.name for p in program.params.values() if p.default is None]
    return {n: variables[n] for n in wanted if n in variables}


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%blv``."""
    try:
        from IPython.core.error import UsageError as CellError
        from IPython.core.magic import register_cell_magic
        from IPython.display import display
    except ImportError as error:
        raise UsageError("the cell magic needs IPython: install the extra `notebook`") from error

    def blv(line: str, cell: str) -> None:
        """Make a model of the cell: ``%%blv [NAME] [--data NAME]``."""
        try:
            model = model_of_cell(line, cell, shell.user_ns)
        except ModelError as error:
            raise CellError("\n" + error.render()) from None
        except UsageError as error:
            raise CellError(str(error)) from None
        display(model)  # type: ignore[no-untyped-call]

    register_cell_magic(blv)
