"""Write the grammars of the editor folders from the compiler's token tables.

``python editors/build.py`` writes them, ``--check`` only says whether they are current, ``--vsix
FILE`` packs the VS Code extension.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from bilevelpy import __version__
from bilevelpy.highlight import DOMAINS, FACTS
from bilevelpy.ir.atoms import CALLS
from bilevelpy.syntax import tokens as table

HERE = Path(__file__).parent
VSCODE, VIM = HERE / "vscode", HERE / "vim"

LEVELS = ("upper", "lower")
BLOCKS = [w for w in (*table.TOP_KEYWORDS, *table.LEVEL_KEYWORDS) if " " not in w]
CLAUSES = [w for w in table.CLAUSE_KEYWORDS if w != "inf"]
EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
NUMBER = rf"[0-9]+(?:\.(?!\.)[0-9]*)?{EXPONENT}|\.[0-9]+{EXPONENT}"
ASSETS = {
    "Microsoft.VisualStudio.Code.Manifest": "extension/package.json",
    "Microsoft.VisualStudio.Services.Content.Details": "extension/README.md",
    "Microsoft.VisualStudio.Services.Content.License": "extension/LICENSE.txt",
}


def words(texts: Iterable[str]) -> str:
    """A pattern of whole words."""
    return rf"\b(?:{'|'.join(sorted(texts))})\b"


def longest(texts: Iterable[str]) -> str:
    """A pattern of signs, longer ones first."""
    return "|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True))


def textmate() -> str:
    """The TextMate grammar."""
    patterns = [
        ("comment.line.documentation.blv", r"##[^\n]*"),
        ("comment.line.number-sign.blv", r"#[^\n]*"),
        ("string.quoted.double.blv", r'"[^"\n]*"'),
        ("keyword.control.blv", r"\bsubject[ \t]+to\b"),
        ("keyword.control.blv", words(BLOCKS)),
        ("keyword.other.blv", words(CLAUSES)),
        ("constant.language.blv", words(("inf", "pi"))),
        ("support.type.blv", words(DOMAINS)),
        ("support.function.blv", words(CALLS) + r"(?=\s*\()"),
        ("support.constant.blv", words(FACTS)),
        ("variable.other.blv", r"[A-Za-z_][A-Za-z0-9_]*"),
        ("constant.numeric.blv", NUMBER),
        ("keyword.operator.blv", longest([*table.COMPARISONS, *table.OPERATORS])),
        ("punctuation.blv", longest(table.PUNCTUATION)),
    ]
    grammar = {
        "name": "BLV",
        "scopeName": "source.blv",
        "fileTypes": ["blv"],
        "patterns": [{"name": name, "match": pattern} for name, pattern in patterns],
    }
    return json.dumps(grammar, indent=2) + "\n"


def vim() -> str:
    """The Vim syntax file."""
    calls = r"\|".join(sorted(CALLS))
    lines = [
        '" Written by editors/build.py from the token tables of the compiler.',
        "if exists('b:current_syntax') | finish | endif",
        "syntax case match",
        f"syntax keyword blvStatement {' '.join(sorted(BLOCKS))}",
        r"syntax match blvStatement /\<subject\s\+to\>/",
        f"syntax keyword blvClause {' '.join(sorted(CLAUSES))}",
        "syntax keyword blvConstant inf pi",
        f"syntax keyword blvType {' '.join(sorted(DOMAINS))}",
        f"syntax keyword blvFact {' '.join(sorted(FACTS))}",
        rf"syntax match blvFunction /\<\%({calls}\)\>\ze\s*(/",
        r"syntax match blvNumber /\<\d\+\%(\.\.\@!\d*\)\=\%([eE][+-]\=\d\+\)\=/",
        'syntax region blvString start=/"/ end=/"/ oneline',
        "syntax match blvComment /#.*/ contains=@Spell",
        "syntax match blvDoc /##.*/ contains=@Spell",
        "highlight default link blvStatement Statement",
        "highlight default link blvClause Keyword",
        "highlight default link blvConstant Constant",
        "highlight default link blvType Type",
        "highlight default link blvFact PreProc",
        "highlight default link blvFunction Function",
        "highlight default link blvNumber Number",
        "highlight default link blvString String",
        "highlight default link blvComment Comment",
        "highlight default link blvDoc SpecialComment",
        "let b:current_syntax = 'blv'",
    ]
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every file that is written, with its text."""
    return {
        VSCODE / "syntaxes" / "blv.tmLanguage.json": textmate(),
        VIM / "syntax" / "blv.vim": vim(),
    }


def vsix(target: Path) -> None:
    """Pack the extension: a zip of the folder, with the manifest and the types of its files."""
    package = json.loads((VSCODE / "package.json").read_text(encoding="utf-8"))
    files = sorted(p for p in VSCODE.rglob("*") if p.is_file() and p.name != ".vscodeignore")
    endings = {"json": "application/json", "js": "application/javascript", "md": "text/markdown",
               "txt": "text/plain"}  # fmt: skip
    types = "".join(f'<Default Extension=".{e}" ContentType="{t}"/>' for e, t in endings.items())
    engine = escape(package["engines"]["vscode"])
    assets = "".join(
        f'<Asset Type="{t}" Path="{p}" Addressable="true"/>' for t, p in ASSETS.items()
    )
    manifest = f"""<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity Language="en-US" Id="{escape(package["name"])}" Version="{__version__}"
      Publisher="{escape(package["publisher"])}"/>
    <DisplayName>{escape(package["displayName"])}</DisplayName>
    <Description xml:space="preserve">{escape(package["description"])}</Description>
    <Categories>{",".join(package["categories"])}</Categories>
    <Properties>
      <Property Id="Microsoft.VisualStudio.Code.Engine" Value="{engine}"/>
    </Properties>
    <License>extension/LICENSE.txt</License>
  </Metadata>
  <Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation>
  <Dependencies/>
  <Assets>
    {assets}
  </Assets>
</PackageManifest>
"""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            f'{types}<Default Extension=".vsixmanifest" ContentType="text/xml"/></Types>\n',
        )
        archive.writestr("extension.vsixmanifest", manifest)
        for path in files:
            text = path.read_text(encoding="utf-8")
            if path.name == "package.json":
                text = json.dumps(package | {"version": __version__}, indent=2) + "\n"
            archive.writestr(f"extension/{path.relative_to(VSCODE).as_posix()}", text)
        archive.write(HERE.parent / "LICENSE", "extension/LICENSE.txt")


def main(arguments: list[str] | None = None) -> int:
    """Write, check or pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say whether the files are current")
    parser.add_argument("--vsix", metavar="FILE", type=Path, help="pack the VS Code extension")
    given = parser.parse_args(arguments)
    stale = [
        p for p, t in generated().items() if not p.is_file() or p.read_text(encoding="utf-8") != t
    ]
    if given.check:
        for path in stale:
            print(f"{path.relative_to(HERE)} is not current: python editors/build.py")
        return 1 if stale else 0
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
    if given.vsix is not None:
        vsix(given.vsix)
        print(given.vsix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
