"""The tables of functions: what the IR knows as one node, and what the language offers on top.

`ELEMENTWISE`, `REDUCTIONS`, `MAPS` and `MATRICES` are the primitives of the IR; each column answers
one question (smoothness, sign, monotonicity, curvature, LaTeX). `CALLS` lists every function name
of the language with its signature; the front end rewrites those that are no primitives (``mean``,
``norm1``, ``logistic``, ...).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Atom:
    """One primitive.

    ``arity``: number of operands (None: any). ``smooth``: twice continuously differentiable on the
    interior of its domain. ``sign``: "+", "-" or "?" of the value. ``monotone``: "+", "-", or "?"
    in its (first) operand. ``curvature``: "affine", "convex", "concave" or "?". ``domain``: where
    it is finite, in words. ``latex``: a template with ``{0}``, ``{1}``.
    """

    arity: int | None
    smooth: bool
    sign: str
    monotone: str
    curvature: str
    latex: str
    domain: str = "all"


ELEMENTWISE: dict[str, Atom] = {
    "add": Atom(None, True, "?", "+", "affine", "{0} + {1}"),
    "neg": Atom(1, True, "?", "-", "affine", "-{0}"),
    "recip": Atom(1, True, "?", "?", "?", r"\frac{{1}}{{{0}}}", "nonzero"),
    "pow": Atom(2, True, "?", "?", "?", "{0}^{{{1}}}", "positive unless the exponent is whole"),
    "square": Atom(1, True, "+", "?", "convex", "{0}^2"),
    "sqrt": Atom(1, True, "+", "+", "concave", r"\sqrt{{{0}}}", "positive"),
    "exp": Atom(1, True, "+", "+", "convex", r"\exp {0}"),
    "expm1": Atom(1, True, "?", "+", "convex", r"\exp({0}) - 1"),
    "log": Atom(1, True, "?", "+", "concave", r"\log {0}", "positive"),
    "log1p": Atom(1, True, "?", "+", "concave", r"\log(1 + {0})", "above -1"),
    "abs": Atom(1, False, "+", "?", "convex", r"\lvert {0} \rvert"),
    "maximum": Atom(2, False, "?", "+", "convex", r"\max({0}, {1})"),
    "minimum": Atom(2, False, "?", "+", "concave", r"\min({0}, {1})"),
    "relu": Atom(1, False, "+", "+", "convex", r"\max({0}, 0)"),
    "softplus": Atom(1, True, "+", "+", "convex", r"\log(1 + e^{{{0}}})"),
    "sigmoid": Atom(1, True, "+", "+", "?", r"\sigma({0})"),
    "tanh": Atom(1, True, "?", "+", "?", r"\tanh {0}"),
    "sin": Atom(1, True, "?", "?", "?", r"\sin {0}"),
    "cos": Atom(1, True, "?", "?", "?", r"\cos {0}"),
    "tan": Atom(1, True, "?", "?", "?", r"\tan {0}", "away from odd multiples of pi/2"),
    "atan": Atom(1, True, "?", "+", "?", r"\arctan {0}"),
    "sinh": Atom(1, True, "?", "+", "?", r"\sinh {0}"),
    "cosh": Atom(1, True, "+", "?", "convex", r"\cosh {0}"),
    # The Huber function has one derivative everywhere and a second one except at |r| = d.
    "huber": Atom(2, False, "+", "?", "convex", r"h_{{{1}}}({0})"),
    "entr": Atom(1, True, "?", "?", "concave", r"-{0} \log {0}", "non-negative"),
    # Data only: conditions and `if`.
    "lt": Atom(2, False, "+", "?", "?", "{0} < {1}"),
    "le": Atom(2, False, "+", "?", "?", r"{0} \le {1}"),
    "gt": Atom(2, False, "+", "?", "?", "{0} > {1}"),
    "ge": Atom(2, False, "+", "?", "?", r"{0} \ge {1}"),
    "eq": Atom(2, False, "+", "?", "?", "{0} = {1}"),
    "ne": Atom(2, False, "+", "?", "?", r"{0} \ne {1}"),
    "and": Atom(None, False, "+", "?", "?", r"{0} \wedge {1}"),
    "or": Atom(None, False, "+", "?", "?", r"{0} \vee {1}"),
    "not": Atom(1, False, "+", "?", "?", r"\neg {0}"),
    "select": Atom(3, False, "?", "?", "?", r"({0}\,?\,{1} : {2})"),
}

REDUCTIONS: dict[str, Atom] = {
    "sum": Atom(1, True, "?", "+", "affine", r"\sum {0}"),
    "prod": Atom(1, True, "?", "?", "?", r"\prod {0}"),
    "max": Atom(1, False, "?", "+", "convex", r"\max {0}"),
    "min": Atom(1, False, "?", "+", "concave", r"\min {0}"),
    "logsumexp": Atom(1, True, "?", "+", "convex", r"\log \sum \exp {0}"),
    "norm2": Atom(1, False, "+", "?", "convex", r"\lVert {0} \rVert_2"),
    "any": Atom(1, False, "+", "+", "?", r"\bigvee {0}"),
}

MAPS: dict[str, Atom] = {
    "softmax": Atom(1, True, "+", "?", "?", r"\operatorname{{softmax}}({0})"),
    "logsoftmax": Atom(1, True, "-", "?", "concave", r"\log\operatorname{{softmax}}({0})"),
}

MATRICES: dict[str, Atom] = {
    "logdet": Atom(1, True, "?", "?", "concave", r"\log\det {0}", "positive definite"),
    "spectral_norm": Atom(1, False, "+", "?", "convex", r"\lVert {0} \rVert_2"),
}

# name -> (signature, what it is); `*` marks those that also take a comprehension.
CALLS: dict[str, tuple[str, str]] = {
    "exp": ("exp(x)", "exponential, entry by entry"),
    "log": ("log(x)", "natural logarithm, entry by entry"),
    "log1p": ("log1p(x)", "log(1 + x), accurate near 0"),
    "expm1": ("expm1(x)", "exp(x) - 1, accurate near 0"),
    "sqrt": ("sqrt(x)", "square root"),
    "abs": ("abs(x)", "absolute value"),
    "square": ("square(x)", "x^2"),
    "relu": ("relu(x)", "max(x, 0)"),
    "softplus": ("softplus(x)", "log(1 + exp(x))"),
    "sigmoid": ("sigmoid(x)", "1 / (1 + exp(-x))"),
    "tanh": ("tanh(x)", "hyperbolic tangent"),
    "sin": ("sin(x)", "sine"),
    "cos": ("cos(x)", "cosine"),
    "tan": ("tan(x)", "tangent"),
    "atan": ("atan(x)", "inverse tangent"),
    "sinh": ("sinh(x)", "hyperbolic sine"),
    "cosh": ("cosh(x)", "hyperbolic cosine"),
    "huber": ("huber(r, d = 1)", "r^2/2 within d, d|r| - d^2/2 outside"),
    "entropy": ("entropy(p)", "-sum(p * log(p))"),
    "logistic": ("logistic(z)", "log(1 + exp(z)), entry by entry"),
    "sum": ("sum(x) or sum(e for i in I where c)", "sum of all entries *"),
    "mean": ("mean(x) or mean(e for i in I)", "mean of all entries *"),
    "prod": ("prod(x) or prod(e for i in I)", "product of all entries *"),
    "max": ("max(x), max(a, b) or max(e for i in I)", "largest entry, or the larger of two *"),
    "min": ("min(x), min(a, b) or min(e for i in I)", "smallest entry, or the smaller of two *"),
    "logsumexp": ("logsumexp(x) or logsumexp(e for i in I)", "log of the sum of exponentials *"),
    "norm1": ("norm1(x)", "sum of absolute values *"),
    "norm2": ("norm2(x)", "Euclidean norm; spectral norm of a matrix *"),
    "norminf": ("norminf(x)", "largest absolute value *"),
    "sumsq": ("sumsq(x)", "sum of squares *"),
    "dot": ("dot(a, b)", "sum of a * b over equal axes"),
    "diag": ("diag(a)", "diagonal of a matrix, or the matrix with that diagonal"),
    "trace": ("trace(A)", "sum of the diagonal"),
    "logdet": ("logdet(A)", "log of the determinant of a positive definite matrix"),
    "quad": ("quad(x, A)", "x' @ A @ x"),
    "softmax": ("softmax(z)", "softmax over the last axis"),
    "logsoftmax": ("logsoftmax(z)", "logarithm of softmax over the last axis"),
    "softmax_cross_entropy": (
        "softmax_cross_entropy(Z, target)",
        "-sum over the last axis of target * logsoftmax(Z); a target without that axis holds "
        "its elements",
    ),
    "concat": ("concat(a, b, ...)", "one after another along the first axis"),
    "ones": ("ones(n, ...)", "tensor of ones"),
    "zeros": ("zeros(n, ...)", "tensor of zeros"),
    "eye": ("eye(n)", "identity matrix"),
    "card": ("card(S)", "number of elements of a set or dim"),
    "dual": ("dual(follower.constraint)", "shadow price of a lower constraint"),
    "file": ('file("data.npz", "name")', "default of a param, read at binding"),
    "csv": ('csv("data.csv", "column")', "default of a param, read at binding"),
    "json": ('json("data.json", "key")', "default of a param, read at binding"),
}
