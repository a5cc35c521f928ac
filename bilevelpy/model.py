"""A model with its data: from text to something that can be analysed and solved. Imports no heavy
library.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.diagnostics import Diagnostic, Severity, Source
from bilevelpy.errors import ExportError, ModelError, UsageError
from bilevelpy.options import near_or_all
from bilevelpy.sema import check
from bilevelpy.system.storage import open_text

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Level, Program

TEXT = "<text>"
# Lines of each part of a model that its repr shows.
SHOWN = 40
# Characters of LaTeX up to which a notebook shows the formulas.
LONGEST = 20_000


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A checked program with its data bound. Made by :func:`bilevelpy.load` and
    :func:`bilevelpy.parse`.

    ``warnings`` are the diagnostics that did not stop it.
    """

    bound: BoundProgram
    warnings: tuple[Diagnostic, ...] = ()
    given: Given = field(default_factory=lambda: Given())
    # What was compiled and found out for this model, by name; filled by the layers above.
    cache: dict[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        # What was compiled is no data: a copy, or another process, makes it anew.
        return {**self.__dict__, "cache": {}}

    @contextmanager
    def alone(self) -> Iterator[Model]:
        """The model for one run: what was compiled for it holds the state of a run, so a second one
        beside it, in another thread, gets a copy that compiles its own.
        """
        turn = self.cache.setdefault("turn", threading.Lock())
        if not turn.acquire(blocking=False):
            yield Model(self.bound, self.warnings, self.given)
            return
        try:
            yield self
        finally:
            turn.release()

    @property
    def program(self) -> Program:
        """The program without its data."""
        return self.bound.program

    @property
    def name(self) -> str:
        """The name in the ``model`` line, else that of the file."""
        return self.program.name

    @property
    def sources(self) -> Mapping[str, Source]:
        """The texts that the model was read from, by file."""
        return self.program.sources

    @property
    def text(self) -> str:
        """The text of the model's own file."""
        return next(iter(self.sources.values())).text

    def bind(
        self, *, data: Any = None, externs: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Model:
        """The same program with other data; what is not given stays as it was. Nothing is parsed or
        compiled again.
        """
        check_names(self.program, keywords)
        check_externs(externs)
        given = self.given.updated(data=data, externs=externs, keywords=keywords)
        return Model(bind_program(self.program, given), self.warnings, given)

    def picture(
        self, result: Any, kind: str = "landscape", path: str | Path | None = None, **options: Any
    ) -> Any:
        """Draw a picture of an answer to this model, and write it to ``path`` if one is given.

        ``kind``: "landscape" (F(x, y(x)) over one or two upper variables, with the path of the
        run), "response" (y(x) along a line through the answer; ``along="lam"`` or ``"lam[3]"``),
        "network" (flows and decisions on the arcs of a set of pairs), "images" (a sheet of images
        with the weights learned for them), "values" (every entry of every variable). ``points``
        sets how many points are sampled.

        Raises
        ------
        UsageError
            The model has no such picture; the text says why.
        """
        from bilevelpy.pictures import draw

        return draw(self.bound, result, kind, path, **options)

    def summary(self) -> str:
        """Sizes, data and variables, a line each."""
        program, bound = self.program, self.bound
        title = f' "{program.title}"' if program.title else ""
        lines = [f"model {program.name}{title}"]
        sizes = [
            f"{n} = {bound.data.sizes[a]}" for n, a in program.axes.items() if a in bound.data.sizes
        ]
        if sizes:
            lines.append(f"  sizes   {', '.join(sizes)}")
        for name in program.params:
            if name in bound.data.arrays:
                array = bound.data.arrays[name]
                origin = bound.data.origins.get(name, "")
                lines.append(
                    f"  data    {name}{_shape(array.shape)}{'  ' + origin if origin else ''}"
                )
        for level in program.levels:
            for v in level.variables:
                shape = tuple(bound.data.sizes.get(a, 0) for a in v.axes)
                domain = f" in {self._written(v.domain.span)}" if v.domain.span else ""
                lines.append(f"  {level.name:<7} {v.name}{_shape(shape)}{domain}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        levels = [self._algebra(level) for level in self.program.levels]
        return "\n\n".join(_shortened(part) for part in (self.summary(), *levels))

    def _repr_latex_(self) -> str | None:
        from bilevelpy.exporters.latex.model import latex

        try:
            formulas = latex(self.program)
        except ExportError:
            return None
        return f"$$\n{formulas}\n$$" if len(formulas) <= LONGEST else None

    def _repr_html_(self) -> str | None:
        # Front ends prefer HTML to LaTeX; without latex2mathml they get the LaTeX.
        from bilevelpy.exporters.latex.model import latex
        from bilevelpy.markup.html import escape
        from bilevelpy.markup.mathml import mathml

        try:
            formulas = latex(self.program)
            if len(formulas) > LONGEST:  # pages of formulas: browsers take seconds over them
                return f"<pre>{escape(repr(self))}</pre>"
            shown = mathml(formulas)
        except (ExportError, UsageError):
            return None
        return f"{shown}\n<pre>{escape(_shortened(self.summary()))}</pre>"

    def _algebra(self, level: Level) -> str:
        """A level as it is written in the model."""
        return self._written(level.span) or f"{level.name}: {level.sense}"

    def _written(self, span: Any) -> str:
        """The text under a span."""
        source = self.sources.get(span.file) if span is not None else None
        return source.text[span.start : span.end] if source is not None else ""


@dataclass(frozen=True, slots=True)
class Given:
    """Everything that the caller handed over, kept so that a part of it can be replaced."""

    data: Any = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str | None, str | Path], ...] = ()
    externs: Mapping[str, Any] = field(default_factory=dict)

    def updated(
        self, *, data: Any, externs: Mapping[str, Any] | None, keywords: Mapping[str, Any]
    ) -> Given:
        """With new data in place of old: names in ``data`` go before keywords that were given
        earlier.
        """
        earlier = self.keywords
        if isinstance(data, Mapping):
            earlier = {k: v for k, v in earlier.items() if k not in data}
            if isinstance(self.data, Mapping):
                data = {**self.data, **data}
        return Given(
            self.data if data is None else data,
            {**earlier, **keywords},
            self.files,
            {**self.externs, **(externs or {})},
        )


def read_model(path: str | Path, given: Given, others: Iterable[str] = ()) -> Model:
    """Parse, check and bind a model file; ``others`` are further keywords to suggest."""
    return build(read_source(path), given, others)


def read_source(path: str | Path) -> Source:
    """The text of a model file; what is not a readable text file is an error of usage."""
    if isinstance(path, str) and path.strip()[-1:] in ("}", ";"):
        raise UsageError(
            "this is the text of a model, not the path of a file: bl.parse reads texts"
        )
    near = _near(Path(path))
    if near is not None:
        raise UsageError(f"there is no {path}; did you mean `{near}`?")
    return Source(str(path), open_text(path, "model"))


def _near(path: Path) -> Path | None:
    """The model beside a file that is not there whose name is like its own."""
    try:
        # A link that leads nowhere is a name like its own.
        there = path.exists() or path.is_symlink()
        names = [] if there else [p.name for p in path.parent.glob("*.blv")]
    except OSError:
        return None  # a path that no system takes: reading it says why
    close = difflib.get_close_matches(path.name, names, n=1)
    return path.with_name(close[0]) if close else None


def build(source: Source, given: Given, others: Iterable[str] = ()) -> Model:
    """Check ``source`` and bind the data; raises with every diagnostic where that fails."""
    result = check(source)
    errors = [d for d in result.diagnostics if d.severity is Severity.ERROR]
    if errors or result.program is None:
        raise ModelError(result.diagnostics, result.sources)
    check_names(result.program, given.keywords, others)
    bound = bind_program(result.program, given)
    return Model(bound, tuple(result.diagnostics), given)


def check_names(program: Program, keywords: Iterable[str], others: Iterable[str] = ()) -> None:
    """Keywords bind data; one that the model does not declare is a mistake, maybe of an option's
    name.
    """
    known = [*program.params, *program.axes, *program.externs]
    for name in keywords:
        if name not in known:
            options = list(others)
            model = f"model `{program.name}`"
            if any(name == v.name for level in program.levels for v in level.variables):
                raise UsageError(
                    f"`{name}` is a variable of {model}, not data: its value is found "
                    "(`start` takes values to begin with)"
                )
            hint = near_or_all(name, [*known, *options])
            if difflib.get_close_matches(name, options, n=1):
                raise UsageError(f"unknown option `{name}`{hint}")
            if options and not difflib.get_close_matches(name, known, n=1):
                raise UsageError(f"`{name}` is neither an option nor data of {model}{hint}")
            raise UsageError(f"{model} declares no data called `{name}`{hint}")


def check_externs(externs: Any) -> None:
    """Functions come by name."""
    if not isinstance(externs, Mapping | None):
        raise UsageError(f"externs takes a mapping of names to functions, found {externs!r:.80}")


def bind_program(program: Program, given: Given) -> BoundProgram:
    """Give every param of ``program`` its array."""
    # NumPy is loaded here and not before: `check` without data does without it.
    from bilevelpy.sema.bind import bind

    return bind(
        program, given.data, keywords=given.keywords, files=given.files, externs=given.externs
    )


def _shortened(text: str) -> str:
    """The first lines of a text that is long, and how many are left out."""
    lines = text.split("\n")
    if len(lines) <= SHOWN:
        return text
    return "\n".join([*lines[:SHOWN], f"  ... ({len(lines) - SHOWN} lines more)"])


def _shape(shape: tuple[int, ...]) -> str:
    """``[3, 4]``, nothing for a scalar."""
    return f"[{', '.join(map(str, shape))}]" if shape else ""
