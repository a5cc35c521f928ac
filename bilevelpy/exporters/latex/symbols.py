"""Names, numbers and texts as LaTeX writes them."""

from __future__ import annotations

GREEK = frozenset([
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi",
    "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega",
])  # fmt: skip
# Names have letters, digits and underscores; the others stand in labels and titles, which are text.
_ESCAPES = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$",
            "{": r"\{", "}": r"\}",
            "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}  # fmt: skip


def escape(text: str) -> str:
    """Text that is safe in LaTeX."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def symbol(name: str) -> str:
    """A name as a symbol: letters, Greek ones by name, words upright."""
    if len(name) == 1:
        return name
    if name in GREEK:
        return f"\\{name}"
    stem = name.rstrip("0123456789")
    if stem and stem != name and (len(stem) == 1 or stem in GREEK):
        return f"{symbol(stem)}_{{{name[len(stem) :]}}}"
    return rf"\mathrm{{{escape(name)}}}"


def number(value: float) -> str:
    """A number; powers of ten as such."""
    if value in (float("inf"), float("-inf")):
        return r"\infty" if value > 0 else r"-\infty"
    text = f"{value:.12g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        front = "" if mantissa == "1" else "-" if mantissa == "-1" else rf"{mantissa} \cdot "
        return f"{front}10^{{{int(exponent)}}}"
    return text


def indexed(shown: str, at: tuple[str, ...]) -> str:
    """A symbol with indices."""
    if not at:
        return shown
    return f"{{{shown}}}_{{{', '.join(at)}}}" if "_" in shown else f"{shown}_{{{', '.join(at)}}}"
