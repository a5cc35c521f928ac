"""Every code with its severity and the sentence it shows; a code is never reused.

01 syntax, 02 names and levels, 03 axes and shapes, 04 data, 05 structure, 06 dispatch and options,
07 export, 08 solve, 09 internal. Each has a page ``docs/errors/BLVnnnn.md``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """Severity and message template (``str.format`` fields) of a code."""

    severity: str
    template: str


ERROR, WARNING = "error", "warning"

CATALOG: dict[str, Entry] = {
    # 01 syntax
    "BLV0101": Entry(ERROR, "expected `{expected}` {where}"),
    "BLV0102": Entry(ERROR, "expected {expected}, found {found}"),
    "BLV0103": Entry(ERROR, "`=` defines a name; a constraint compares with `==`, `<=` or `>=`"),
    "BLV0104": Entry(ERROR, "`{opener}` is not closed"),
    "BLV0105": Entry(ERROR, "`{closer}` closes {what}"),
    "BLV0106": Entry(ERROR, "a constraint needs a name"),
    "BLV0107": Entry(ERROR, "{character} is not a character of the language"),
    "BLV0108": Entry(
        ERROR, "a text ends on the line where it starts; its closing quote is missing"
    ),
    "BLV0109": Entry(ERROR, "`{name}` is a reserved word, it cannot name something"),
    "BLV0110": Entry(ERROR, "`{found}` is written `{right}`"),
    "BLV0111": Entry(ERROR, "nested deeper than {limit}"),
    "BLV0112": Entry(ERROR, "constraints stand after `subject to`"),
    "BLV0113": Entry(ERROR, "iterators are written {form}"),
    "BLV0114": Entry(ERROR, "`{found}` is not a keyword, `{right}` is"),
    "BLV0115": Entry(ERROR, "comments start with `#`, not with `{found}`"),
    "BLV0116": Entry(ERROR, "an operator is missing between `{left}` and `{right}`"),
    "BLV0117": Entry(ERROR, "labels and texts stand in double quotes"),
    "BLV0118": Entry(ERROR, "a comparison stands after `where` or `if`, not in place of a value"),
    "BLV0119": Entry(ERROR, "a set cannot be used as a value"),
    "BLV0120": Entry(ERROR, "a condition compares two values"),
    "BLV0121": Entry(ERROR, "`expect` states a value with `==`"),
    "BLV0122": Entry(ERROR, "in `assume`, only `dual(...)` takes an interval"),
    "BLV0123": Entry(ERROR, "`{keyword}` belongs {place}"),
    "BLV0124": Entry(ERROR, "a constraint has at most two comparisons"),
    "BLV0125": Entry(ERROR, "a range is written `low..high`"),
    "BLV0126": Entry(ERROR, "a list does not end with a comma"),
    "BLV0127": Entry(ERROR, "`;` ends no statement here"),
    "BLV0128": Entry(ERROR, "a number beyond 1.8e308 is none that a computer keeps"),
    # 02 names and levels
    "BLV0201": Entry(ERROR, "unknown name `{name}`"),
    "BLV0202": Entry(ERROR, "`{name}` is declared twice"),
    "BLV0203": Entry(ERROR, "`{name}` hides a name that is in use around it"),
    "BLV0204": Entry(ERROR, "`{name}` is {what} of the language and cannot be declared"),
    "BLV0205": Entry(ERROR, "`{name}` is defined in a circle: {chain}"),
    "BLV0206": Entry(ERROR, "the function `{name}` calls itself: {chain}"),
    "BLV0207": Entry(ERROR, "the model has no `upper` level"),
    "BLV0208": Entry(ERROR, "the model has two `upper` levels"),
    "BLV0209": Entry(ERROR, "`{name}` has no objective"),
    "BLV0210": Entry(ERROR, "`{name}` has two objectives"),
    "BLV0211": Entry(ERROR, "the model has two headers"),
    "BLV0212": Entry(ERROR, "{reader} cannot read `{name}`, a `let` of `{owner}`"),
    "BLV0213": Entry(ERROR, "`{name}` is declared by several followers"),
    "BLV0214": Entry(ERROR, "follower `{follower}` reads the decision of another follower"),
    "BLV0215": Entry(ERROR, "`dual(...)` stands in `upper` and in reports, not in `{level}`"),
    "BLV0216": Entry(ERROR, "`dual(...)` takes a constraint of a lower level"),
    "BLV0217": Entry(ERROR, "there is no function `{name}`"),
    "BLV0218": Entry(ERROR, "`{name}` is called with the wrong arguments"),
    "BLV0219": Entry(ERROR, "`{name}` does not take a comprehension"),
    "BLV0220": Entry(ERROR, "`{name}` is {what}, not a value"),
    "BLV0221": Entry(ERROR, "`{name}` cannot stand here: {where}"),
    "BLV0222": Entry(ERROR, "a constraint cannot use `{operator}`; write `{right}`"),
    "BLV0224": Entry(ERROR, "`{name}` is not {what}"),
    "BLV0225": Entry(ERROR, 'cannot include "{path}"'),
    "BLV0226": Entry(ERROR, '"{path}" includes itself, directly or through other files'),
    "BLV0227": Entry(ERROR, "inlining `{name}` makes the model grow beyond {limit} calls or terms"),
    "BLV0228": Entry(ERROR, "`{name}(...)` stands only as the default of a param"),
    "BLV0229": Entry(ERROR, "`{name}` is no level of this file: {levels}"),
    "BLV0230": Entry(ERROR, "`{name}` stands only in `expect` and `report`"),
    "BLV0231": Entry(ERROR, "`{level}` has no `{name}`"),
    "BLV0232": Entry(ERROR, "the two comparisons of `{name}` do not bound from both sides"),
    # 03 axes and shapes
    "BLV0301": Entry(ERROR, "`@` cannot contract {left} with {right}"),
    "BLV0302": Entry(
        ERROR, "`@` needs a vector or matrix on both sides, but `{scalar}` is a scalar"
    ),
    "BLV0303": Entry(ERROR, "`{operator}` needs equal axes, found {left} and {right}"),
    "BLV0304": Entry(ERROR, "`{name}` has {axes}, found {found} in its subscript"),
    "BLV0305": Entry(ERROR, "axis {position} of `{name}` is indexed by {found}, not by {expected}"),
    "BLV0306": Entry(ERROR, "{found} is not an element of {axis}"),
    "BLV0307": Entry(ERROR, "`{name}` needs {expected}, found {found}"),
    "BLV0308": Entry(ERROR, "{what} needs {need}, found {found}"),
    "BLV0309": Entry(ERROR, "{what} is not a number"),
    "BLV0310": Entry(ERROR, "`{name}` is {what}, not an axis"),
    "BLV0311": Entry(ERROR, "`{text}` is not a size: whole numbers from 1 on are"),
    "BLV0312": Entry(ERROR, "{what} from {low} to {high} is empty"),
    "BLV0313": Entry(
        ERROR, "the {what} of `{name}` does not fit: expected {expected}, found {found}"
    ),
    "BLV0314": Entry(ERROR, "{what} must be a scalar for each element, found axes {axes}"),
    "BLV0315": Entry(ERROR, "a range cannot depend on the iterator `{iterator}`"),
    "BLV0316": Entry(ERROR, "rows of an array have equal shapes, found {first} and {found}"),
    "BLV0317": Entry(ERROR, "an element of {axis} has {width}, found {found} for it"),
    "BLV0318": Entry(ERROR, "{axis} is indexed by its labels, not by a number"),
    "BLV0319": Entry(ERROR, "`{operator}` cannot combine {left} and {right}"),
    "BLV0320": Entry(ERROR, "{element} is listed twice"),
    "BLV0321": Entry(ERROR, "an element of {axis} is made of {expected}"),
    "BLV0322": Entry(ERROR, "this condition cannot read the outer iterator `{iterator}`"),
    "BLV0323": Entry(ERROR, "the domain `{name}` needs {need}, found {found}"),
    "BLV0324": Entry(ERROR, "the objective of `{level}` must be one number, found axes {axes}"),
    "BLV0325": Entry(ERROR, "the start of `{name}` is {found}, outside its domain {domain}"),
    # 04 data
    "BLV0401": Entry(ERROR, "no data for {names}"),
    "BLV0402": Entry(ERROR, "`{name}` has {found} {along} but axis `{axis}` is {expected} long"),
    "BLV0403": Entry(ERROR, "`{name}` is declared as {declared} but its data is {found}"),
    "BLV0404": Entry(ERROR, "the model has no param, set, dim or extern `{name}`"),
    "BLV0405": Entry(ERROR, "{count} of {total} values of `{name}` lie outside {domain}"),
    "BLV0406": Entry(ERROR, "{count} of {total} values of `{name}` {verb} {what}"),
    "BLV0407": Entry(ERROR, "`{name}` needs numbers, found {found}"),
    "BLV0408": Entry(ERROR, "nothing tells the {what} of `{axis}`"),
    "BLV0409": Entry(ERROR, "`{name}` has no value for {count} of the {total} elements of {axes}"),
    "BLV0410": Entry(ERROR, "the data of `{name}` has {element}, which is not in `{axis}`"),
    "BLV0411": Entry(ERROR, "cannot read {file}: {reason}"),
    "BLV0412": Entry(ERROR, "{file} holds no {key}"),
    "BLV0413": Entry(ERROR, "a model reads regular files below its own folder only, not {path}"),
    "BLV0414": Entry(ERROR, "`{text}` reaches outside of `{axis}`"),
    "BLV0415": Entry(ERROR, "{element} is not an element of `{axis}`"),
    "BLV0416": Entry(ERROR, "the size `{axis}` is a whole number from 1 on, not {found}"),
    "BLV0417": Entry(ERROR, "{names} need each other's value"),
    "BLV0418": Entry(ERROR, "`{axis}` is fixed by the model and cannot become {found}"),
    "BLV0419": Entry(ERROR, "the elements of `{axis}` cannot be taken from {found}"),
    "BLV0420": Entry(ERROR, "`{axis}` has no elements, but {what} needs at least one"),
    "BLV0421": Entry(ERROR, "extern `{name}` needs a function, found {found}"),
    "BLV0422": Entry(ERROR, "`{name}` is not {what}"),
    "BLV0423": Entry(ERROR, "the data of `{name}` has {element} twice"),
    "BLV0424": Entry(ERROR, "an end of the range `{axis}` is {found}, not a whole number"),
    "BLV0425": Entry(ERROR, "{what} has no value"),
    "BLV0426": Entry(ERROR, "the bounds of `{name}` cross: {low} is not below {high}"),
    "BLV0427": Entry(ERROR, "the start of `{name}` lies outside of {domain}"),
    "BLV0428": Entry(ERROR, "`{name}` and `{first}` name their rows along `{axis}` differently"),
    # 05 structure
    "BLV0502": Entry(
        WARNING, "the objective of `{level}` is not known to be convex in its variables"
    ),
    "BLV0503": Entry(WARNING, "the objective of `{level}` is not convex in its variables"),
    "BLV0504": Entry(ERROR, "`assume {fact}` of `{level}` does not hold"),
    "BLV0530": Entry(WARNING, "constraint `{name}` of `{level}` reads none of its variables"),
    "BLV0531": Entry(WARNING, "variable `{name}` of `{level}` occurs in {reading}"),
    # 06 dispatch and options
    "BLV0601": Entry(ERROR, "no installed backend accepts this model"),
    "BLV0602": Entry(ERROR, "backend `{backend}` does not accept this model"),
    "BLV0603": Entry(ERROR, "this would take {size} of memory, and {memory} is all there is"),
    "BLV0604": Entry(ERROR, "`exact` does not find the worst response for this leader: {reason}"),
    # 07 export and import
    "BLV0701": Entry(ERROR, "{target} cannot hold {what}"),
    "BLV0702": Entry(
        ERROR, "`{level}` is not known to be convex, so optimality conditions cannot replace it"
    ),
    "BLV0703": Entry(
        ERROR, "`{level}` decides whole numbers, so optimality conditions cannot replace it"
    ),
    "BLV0704": Entry(ERROR, "{target} reads the model optimistically, but it is pessimistic"),
    "BLV0705": Entry(ERROR, "no bound of the multiplier of `{row}` is known"),
    "BLV0706": Entry(
        ERROR, "written entry by entry this needs {count} terms, the limit is {limit}"
    ),
    "BLV0707": Entry(ERROR, "{what} cannot be written entry by entry"),
    "BLV0708": Entry(ERROR, "`{row}` has no finite range"),
    "BLV0709": Entry(ERROR, "MibS needs whole numbers where a lower row reads the upper level"),
    "BLV0720": Entry(ERROR, "cannot read this: {reason}"),
    "BLV0721": Entry(ERROR, "{what} cannot be taken over"),
    # 08 solve
    # 09 internal
}
