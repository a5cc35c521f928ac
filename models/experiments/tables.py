"""Tables of an experiment: mean and spread over the seeds, time to an accuracy, who wins."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from experiment import Outcome, Setting
from harness import ENDED

# F counts as reached where it stays within this fraction of the lowest one of the seed.
NEAR = 0.01


def table(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Mean and spread (standard deviation) over the seeds, a row for each method."""
    names = ["F", *setting.reports]
    sign = "largest" if setting.larger else "smallest"
    head = ["method", "status", *names, f"{sign} {setting.held_out} (at s)"]
    head += [f"s to within {100 * NEAR:g} % of the best F", "evaluations", "s", "CPU s"]
    rows, seeds = [], len({o.seed for o in outcomes})
    for method in dict.fromkeys(o.method for o in outcomes):
        runs = [o for o in outcomes if o.method == method]
        cells = [spread([o.numbers.get(n, math.nan) for o in runs]) for n in names]
        found = [best(o, setting) for o in runs]
        when = statistics.fmean(at for _, at in found)
        top = spread([value for value, _ in found])
        times = [reached(o, setting, lowest(setting, outcomes, o.seed)) for o in runs]
        count = statistics.fmean(o.evaluations for o in runs)
        rows.append(
            [
                method if len(runs) == seeds else f"{method} ({len(runs)} of {seeds} seeds)",
                _status(runs),
                *cells,
                top if top == "-" else f"{top} ({when:.3g})",
                _times(times),
                f"{count:,.0f}" if count else "-",
                spread([o.seconds for o in runs]),
                spread([o.cpu for o in runs]),
            ]
        )
    lines = [f"## {setting.name}", "", f"Model: `{setting.model}`. Seeds: {seeds}."]
    lines += [*_auto(outcomes), ""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", winners(setting, outcomes)]
    return "\n".join(lines)


def _status(runs: Sequence[Outcome]) -> str:
    """How the runs ended and, where several ways, how many each; with the limits that ended one."""
    found = []
    for status in dict.fromkeys(o.status for o in runs):
        same = [o for o in runs if o.status == status]
        shown = status if len(same) == len(runs) else f"{status} {len(same)}x"
        limits = [f"{o.limit:.3g}" for o in sorted(same, key=lambda o: o.limit)]
        if status == "time_limit":
            shown += f" ({' - '.join(dict.fromkeys((limits[0], limits[-1])))} s)"
        found.append(shown)
    return ", ".join(found)


def _auto(outcomes: Sequence[Outcome]) -> list[str]:
    """What `auto` picked and why, and what the largest memory was."""
    found: dict[str, tuple[str, ...]] = {}
    for o in outcomes:
        if o.why:
            found.setdefault(o.method, o.why)
    lines = [f"`{method}`: {'; '.join(why)}." for method, why in found.items()]
    memory = [o.memory for o in outcomes if math.isfinite(o.memory)]
    if memory:
        lines.append(f"Largest memory of the process: {max(memory):.2f} GB.")
    return lines


def lowest(setting: Setting, outcomes: Sequence[Outcome], seed: int) -> float:
    """The best upper objective of a seed over all methods (references are none): the lowest, or the
    largest one.
    """
    rated = [o for o in outcomes if o.seed == seed and o.status != "reference"]
    found = [o.numbers.get("F", math.nan) for o in rated]
    found = [F for F in found if math.isfinite(F)]
    return (max if setting.maximize else min)(found, default=math.nan)


def best(outcome: Outcome, setting: Setting) -> tuple[float, float]:
    """The best value of the held-out report along a run and the second at which it was passed."""
    rows = [(r.reports[setting.held_out], r.time) for r in outcome.history if r.reports]
    found = [(v, t) for v, t in rows if math.isfinite(v)]
    if not found:
        return math.nan, math.nan
    if setting.larger:
        return max(found, key=lambda p: p[0])
    return min(found, key=lambda p: p[0])


def reached(outcome: Outcome, setting: Setting, F: float) -> float:
    """The second from which on the upper objective stays within `NEAR` of ``F`` or is better;
    infinite where it ends worse, NaN where nothing was followed.
    """
    if not outcome.history:
        return math.nan
    when, sign = math.inf, -1.0 if setting.maximize else 1.0
    for record in reversed(outcome.history):
        if not sign * (record.F - F) <= NEAR * abs(F):
            break
        when = record.time
    return when


def _times(values: Sequence[float]) -> str:
    """Mean time, and in how many runs it is finite where that is not all of them."""
    runs = [v for v in values if not math.isnan(v)]
    finite = [v for v in runs if math.isfinite(v)]
    if not finite:
        return "never" if runs else "-"
    shown = f"{statistics.fmean(finite):.3g}"
    return shown if len(finite) == len(runs) else f"{shown} ({len(finite)} of {len(runs)})"


def winners(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Who has the best upper objective, and who is best on held-out data: often another one. Means
    are over the seeds that all methods have.
    """
    found = [o.method for o in outcomes if o.numbers and o.status != "reference"]
    methods = list(dict.fromkeys(found))
    if not methods:
        return "No method has a result."
    seeds = [{o.seed for o in outcomes if o.method == m and o.numbers} for m in methods]
    common = set.intersection(*seeds)
    if not common:
        common = set.union(*seeds)
        methods = [m for m, own in zip(methods, seeds, strict=True) if own == common] or methods

    def mean(method: str, name: str) -> float:
        """Over the seeds that all methods have."""
        rated = [o for o in outcomes if o.method == method and o.seed in common]
        return statistics.fmean(o.numbers.get(name, math.nan) for o in rated) if rated else math.nan

    def rank(name: str, larger: bool) -> str:
        """The method with the best mean; of those that print the same, the first backend."""
        sign = -1.0 if larger else 1.0
        rated = [m for m in methods if math.isfinite(mean(m, name))]
        rated.sort(key=lambda m: m in baselines)
        return min(rated or methods, key=lambda m: float(f"{sign * mean(m, name):.4g}"))

    baselines = {o.method for o in outcomes if o.status == "baseline"}
    least, top = rank("F", setting.maximize), rank(setting.held_out, setting.larger)
    sentence = (
        f"Best F: {least} ({mean(least, 'F'):.4g}). "
        f"Best {setting.held_out}: {top} ({mean(top, setting.held_out):.4g})"
    )
    ours = [m for m in methods if m not in baselines and not m.startswith(ENDED)]
    if top not in baselines or not ours:
        return f"{sentence}."
    sign = -1.0 if setting.larger else 1.0
    near = min(ours, key=lambda m: sign * mean(m, setting.held_out))
    other = f"the best backend has {mean(near, setting.held_out):.4g} ({near})"
    if is_clear(outcomes, setting.held_out, top, near):
        return f"{sentence}: a simpler method wins there; {other}."
    return f"{sentence}; {other}: no clear difference."


def is_clear(outcomes: Sequence[Outcome], name: str, a: str, b: str) -> bool:
    """Whether two methods differ by more than two standard errors of their differences by seed."""
    values = [
        {o.seed: o.numbers[name] for o in outcomes if o.method == m and name in o.numbers}
        for m in (a, b)
    ]
    differences = [values[0][seed] - values[1][seed] for seed in values[0] if seed in values[1]]
    if len(differences) < 2:
        return True
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return abs(statistics.fmean(differences)) > 2 * error


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of what is finite."""
    found = [v for v in values if math.isfinite(v)]
    if not found:
        return "-"
    mean = f"{statistics.fmean(found):.4g}"
    return mean if len(found) < 2 else f"{mean} ± {statistics.stdev(found):.2g}"
