"""AMPL text with `complements`, read without AMPL: GLPK takes everything but that keyword, and what
is no linear program is evaluated.
"""

import math
import re

from bilevelpy.exporters.python.python_script import ALL

PAIR = re.compile(
    r"subject to (\w+)(\{i in 0\.\.\d+\})?: 0 <= (.*) complements ([^ ]+) >= 0;$", re.MULTILINE
)
BIG = 1_000.0


def gmpl(text, data=None):
    """The model with each pair as its two binary halves: (model, data) in GLPK's part of AMPL."""

    def halves(match):
        name, over, slack, multiplier = match.groups()
        over, index = over or "", "[i]" if over else ""
        return (
            f"var b_{name}{over} binary;\nsubject to {name}{over}: {slack} >= 0;\n"
            f"subject to u_{name}{over}: {slack} <= {BIG:g}*b_{name}{index};\n"
            f"subject to m_{name}{over}: {multiplier} <= {BIG:g}*(1 - b_{name}{index});"
        )

    made = PAIR.sub(halves, text)
    # Starts, commands with a list, and infinite parameters are AMPL's own.
    made = made.replace(", := start[j]", "")
    made = re.sub(r"^(data '.*'|display \{.*\} .*);\n", "", made, flags=re.MULTILINE)
    return made, None if data is None else data.replace("Infinity", "1e6")


def solved(model, data=None):
    """The optimum of a GMPL model by GLPK."""
    import swiglpk as glp

    glp.glp_term_out(0)
    problem, space = glp.glp_create_prob(), glp.glp_mpl_alloc_wksp()
    assert glp.glp_mpl_read_model(space, str(model), 0 if data is None else 1) == 0
    assert data is None or glp.glp_mpl_read_data(space, str(data)) == 0
    assert glp.glp_mpl_generate(space, None) == 0
    glp.glp_mpl_build_prob(space, problem)
    options = glp.glp_iocp()
    glp.glp_init_iocp(options)
    options.presolve = 1
    assert glp.glp_intopt(problem, options) == 0
    assert glp.glp_mip_status(problem) == glp.GLP_OPT
    return glp.glp_mip_obj_val(problem)


def evaluated(text, point, data=None):
    """Objective, rows (low, value, high) by name, and slacks by name, at the columns of a point.

    ``point`` gives the values of the variables in the order of their declaration.
    """
    space = {f: getattr(math, f) for f in ALL.split()}
    space |= {"abs": abs, "max": max, "min": min, "Infinity": math.inf}
    for name, body in re.findall(r"^param (\w+) :=\n(.*?)\n;$", data or "", re.M | re.S):
        lines = (line.split(None, 1) for line in body.splitlines())
        space[name] = {int(k): eval(value, {"Infinity": math.inf}) for k, value in lines}
    if data is None:
        names = re.findall(r"^var (\w+)", text, re.M)
        space |= dict(zip(names, point, strict=True))
    else:
        space["v"] = list(point)
    rows, slacks, objective = {}, {}, None
    for line in text.splitlines():
        shared = re.match(r"var (z\d+)\{i in 0\.\.(\d+)\} = (.*);", line)
        if shared and data is not None:
            name, last, body = shared.groups()
            code = python(body)
            space[name] = [eval(code, {**space, "i": i}) for i in range(int(last) + 1)]
        elif line.startswith("minimize F: "):
            objective = eval(python(line[12:-1]), space)
        elif line.startswith("subject to is_whole"):
            continue
        elif line.startswith("subject to "):
            head, _, rest = line[11:-1].partition(": ")
            name, _, over = head.partition("{i in 0..")
            pair = " complements " in rest
            sides = rest.partition(" complements ")[0] if pair else rest
            for i in range(int(over[:-1]) + 1) if over else [0]:
                key = (name, i) if over else name
                ends = [
                    eval(python(p), {**space, "i": i}) for p in re.split(r" (?:<=|>=|=) ", sides)
                ]
                signs = re.findall(r" (<=|>=|=) ", sides)
                if pair:
                    slacks[key] = ends[1] - ends[0]
                elif len(ends) == 3:
                    rows[key] = tuple(ends)
                else:
                    low = ends[1] if signs[0] in (">=", "=") else -math.inf
                    high = ends[1] if signs[0] in ("<=", "=") else math.inf
                    rows[key] = (low, ends[0], high)
    return objective, rows, slacks


def python(text):
    """An AMPL expression in Python: powers, and sums over an index."""
    text = text.replace("^", "**")
    while True:
        head = re.search(r"\(sum\{(\w+) in ", text)
        if head is None:
            return text
        close = text.index("}", head.end())
        start, _, stop = text[head.end() : close].rpartition("..")
        depth, end = 0, close + 2
        while depth or end == close + 2:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        index, stop = head[1], stop.removesuffix("-1")
        body = text[close + 2 : end]
        text = (
            f"{text[: head.start()]}(sum({body} for {index} in range({start}, {stop})){text[end:]}"
        )
