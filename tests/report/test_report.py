"""Reports: one page that says everything and fetches nothing."""

from __future__ import annotations

import html
import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("latex2mathml", reason="reports need the extra `report`")

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.markup.mathml import mathml
from bilevelpy.reporting import page, write

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Outline(html.parser.HTMLParser):
    """Collects what a page would fetch, its headings, and tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith(("data:", "#")):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "kink.html"
    assert main(["report", str(ROOT / "models/box_kink.blv"), "--out", str(path)]) == 0
    return path


def test_a_report_is_complete_and_fetches_nothing(written: Path) -> None:
    text = written.read_text()
    found = outline(text)
    assert found.fetched == []
    assert "url(" not in text
    assert "<script" not in text
    assert found.headings == [
        "Optimum at a kink of the response",
        *("Answer", "Model", "Data", "Structure", "Decision", "Run", "Certificate", "Solution"),
        "Environment",
    ]
    for words in ("converged", "argmin", "The follower comes as close to x", "strongly convex",
                  "hypergradient norm", "var y in [0, 1];", "numpy", "model_hash"):  # fmt: skip
        assert words in found.text
    assert text.count("<img ") == 3  # the run, the landscape, the response


def test_names_from_a_model_are_text_not_markup(tmp_path: Path) -> None:
    model = bl.parse(
        'model evil "<script>alert(1)</script>";\n# </pre><script>alert(2)</script>\n'
        'set S = {"<b>", "</table>"};\n'
        "upper { var x[S] in [0, 1]; minimize sum(x) + y; } lower a { var y; minimize (y - 1)^2; }"
    )
    result = bl.solve(model)
    text = page(model, bl.analyze(model), result)
    outline(text)
    assert "<script" not in text
    with pytest.raises(bl.UsageError, match=r"written as .html"):
        write(tmp_path / "r.pdf", model, bl.analyze(model), result)


def test_a_report_of_a_model_without_a_solution_says_why(tmp_path: Path) -> None:
    model = bl.parse(
        "model m; upper { var x in [0, 1]; minimize x + y; }\n"
        "lower low { var y in [0, 1]; minimize y; subject to c: y >= 2 + x; }"
    )
    result = bl.solve(model)
    text = page(model, bl.analyze(model), result)
    assert "the follower <code>low</code> has no feasible point" in text
    assert "not known" in outline(text).text


def test_a_report_of_a_failed_solve_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    model = str(ROOT / "models/logistic_small.blv")
    assert main(["report", model, "--out", str(path), "--max-iter", "1"]) == 1
    assert "iteration_limit" in outline(path.read_text()).text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "r.txt"], "must end in .html"),
        (["--out", "nowhere/r.html"], "its directory does not exist"),
    ],
)
def test_wrong_targets_are_refused_before_the_solve(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(ROOT / "models/box_kink.blv"), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_every_model_of_the_catalogue_becomes_mathml() -> None:
    from bilevelpy.diagnostics import Source
    from bilevelpy.exporters.latex.model import latex
    from bilevelpy.sema import check

    for path in sorted(ROOT.glob("models/**/*.blv")):
        program = check(Source(str(path), path.read_text())).program
        assert program is not None
        shown = mathml(latex(program))
        outline(shown)
        body = shown.split("<annotation")[0]
        assert "\\" not in body, path.name  # every command was understood
        # A line each, and two lines below every sum with a long condition.
        rows = latex(program).count("\\\\\n") + 1 + 2 * latex(program).count(r"\substack")
        assert body.count("<mtr>") == rows


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_desktop_and_phone(written: Path, tmp_path: Path, width: int) -> None:
    """Rendered without a network; nothing but what scrolls by itself is wider than the window.

    Windows of Chromium are 500 wide at least; a frame is as narrow as a phone.
    """
    script = (
        "<script>window.onload = () => { const page = frames[0].document; document.title = "
        "'wide:' + page.documentElement.scrollWidth + ':' + frames[0].innerWidth + ':' + "
        "[...page.images].every(i => i.complete && i.naturalWidth > 0); }</script>"
    )
    inside = html.escape(written.read_text(), quote=True)
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<!doctype html><title></title><body style="margin:0">{script}<iframe srcdoc="{inside}" '
        f'style="border:0;width:{width}px;height:900px"></iframe></body>'
    )
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,1000",
               probe.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>wide:(\d+):(\d+):(\w+)", done.stdout)
    assert found is not None, done.stderr[-500:]
    assert int(found[2]) == width
    assert int(found[1]) <= width
    assert found[3] == "true"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (r"y_{\text{north\_sea}}", "north_sea"),
        (r"y_{\text{50\%}}", "50%"),
        (r"\text{a\&\{b\}\#\$}", "a&amp;{b}#$"),
        (r"\text{x\textasciicircum{}2\textasciitilde{}\textbackslash{}}", "x^2~\\"),
    ],
)
def test_labels_in_formulas_show_what_they_are(written: str, shown: str) -> None:
    assert f"<mtext>{shown}</mtext>" in mathml(written)
