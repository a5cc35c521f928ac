"""Which backend is preferred for which structure: one table, first match wins.

A rule prefers; whether a backend can take a model at all is its own ``accepts``. ``row`` is the row
of the decision table of the documentation that a rule belongs to.
"""

from __future__ import annotations

from bilevelpy.dispatcher import conditions as c
from bilevelpy.dispatcher.rule import Rule

# Of a rule: row, name, backend and conditions in a line, and the reason below.
# fmt: off
RULES: tuple[Rule, ...] = (
    Rule(14, "steps are the model", "itd", (c.STEPS,),
         "the answer below is the end of given steps, not a minimiser: those steps are "
         "differentiated"),
    Rule(1, "whole program", "exact", (c.WHOLE,),
         "multipliers, whole numbers, games or moving bounds: solved to global optimality"),
    Rule(1, "linear follower", "exact", (c.LINEAR_BELOW,),
         "a linear follower jumps between vertices, where gradients are useless: solved to "
         "global optimality"),
    Rule(9, "fits and entropies with rows", "kkt",
         (c.CONSTRAINED, c.CURVED, c.AFFINE_ROWS, c.BEYOND_SEARCH),
         "rows and {m} lower variables below an objective that global searches do not end with: "
         "exact hypergradients from the KKT system"),
    Rule(1, "constrained, small", "exact", (c.CONSTRAINED, c.FEW_ROWS),
         "constraints and {m} lower variables: solved to global optimality"),
    Rule(15, "data in files", "saba", (c.STREAMED, c.UNIQUE, c.SMOOTH, c.FREE_BELOW),
         "the data does not fit into memory: batches of its rows, with variance reduction"),
    Rule(16, "data in files, not convex", "f2sa",
         (c.STREAMED, c.NOT_CONVEX, c.SMOOTH, c.FREE_BELOW),
         "the data does not fit into memory, and the lower level is not known to be convex: a "
         "penalty on its value by batches; nothing is claimed beyond the certificate"),
    Rule(2, "constant quadratic", "direct", (c.CONSTANT,),
         "the lower Hessian is constant: one Cholesky factor of size {m} serves the whole run",
         {"constant_hessian": True}),
    Rule(8, "many bounds", "kkt", (c.MANY_BOUNDS, c.UNIQUE, c.SMOOTH),
         "bounds on {m} lower variables: F has many kinks, and steps go from piece to piece of the "
         "response"),
    Rule(8, "simple set, small", "direct", (c.SIMPLE_SET, c.UNIQUE, c.SMALL),
         "{m} lower variables in a simple set: Newton on the free face, exact adjoint there"),
    Rule(4, "small", "direct", (c.UNIQUE, c.SMALL),
         "{m} lower variables: a dense Newton solve and an exact Cholesky adjoint are cheap"),
    Rule(9, "constrained, convex", "kkt", (c.CONSTRAINED, c.CURVED, c.AFFINE_ROWS),
         "rows and {m} lower variables: exact hypergradients from their KKT system"),
    Rule(9, "constrained, smooth", "nlp", (c.CONSTRAINED, c.SMALL_SYSTEM),
         "constraints and {m} lower variables: optimality conditions of the lower level"),
    Rule(9, "constrained, quadratic", "nlp", (c.CONSTRAINED, c.POLYNOMIAL),
         "constraints and {m} lower variables, quadratic: solved jointly, with the KKT adjoint"),
    Rule(9, "matrices with rows", "conic", (c.CONSTRAINED, c.SEMIDEFINITE),
         "semidefinite matrices and rows: a conic solver, the adjoint on the face"),
    Rule(10, "constrained, large, strongly convex", "blocc", (c.CONSTRAINED, c.UNIQUE),
         "constraints that couple the levels, {m} lower variables: gradients of the Lagrangian"),
    Rule(10, "constrained, merely convex", "gaffa", (c.CONSTRAINED,),
         "constraints, {m} lower variables: a regularised gap function, gradients only"),
    Rule(10, "constrained, single loop", "lvhba", (c.CONSTRAINED,),
         "constraints, {m} lower variables: projections onto the rows, gradients only"),
    Rule(11, "merely convex", "slbamm", (c.MERELY_CONVEX, c.SMOOTH),
         "the lower level may have several solutions: aggregation with a vanishing weight of F "
         "selects the one that is best for the leader"),
    Rule(11, "merely convex, tiny", "nlp", (c.MERELY_CONVEX, c.SMOOTH, c.TINY),
         "the lower level may have several solutions: its optimality conditions hold at all of "
         "them, and the leader chooses"),
    Rule(11, "merely convex, penalty", "meha", (c.MERELY_CONVEX, c.SMOOTH),
         "the lower level may have several solutions: the Moreau envelope needs no unique one"),
    Rule(12, "norms of groups below", "direct", (c.GROUP_NORMS,),
         "norms of groups and {m} variables below: Newton on the groups that are not 0, exact "
         "adjoint there"),
    Rule(12, "fits with weighted absolute values below", "direct",
         (c.ABSOLUTE_VALUES, c.BEYOND_SEARCH),
         "weighted absolute values and {m} variables below an objective that global searches do "
         "not end with: Newton on the support, exact adjoint there"),
    Rule(12, "fits with kinks below", "kkt", (c.NONSMOOTH, c.EPIGRAPHS, c.BEYOND_SEARCH),
         "kinks that rows take the place of, and {m} lower variables below an objective that "
         "global searches do not end with: exact hypergradients from the KKT system"),
    Rule(12, "kinks below, small", "exact", (c.NONSMOOTH, c.TINY, c.FEW_KINKS),
         "the lower level has kinks and {m} variables: solved to global optimality"),
    Rule(12, "weighted absolute values below", "direct", (c.ABSOLUTE_VALUES,),
         "weighted absolute values and {m} variables below: Newton on the support, exact adjoint"
         " there"),
    Rule(12, "weighted absolute values below, by products", "aid", (c.ABSOLUTE_VALUES,),
         "weighted absolute values and {m} variables below: conjugate gradients on the support"),
    Rule(12, "epigraphs below", "kkt", (c.NONSMOOTH, c.EPIGRAPHS),
         "{m} lower variables, with kinks that rows take the place of: exact hypergradients from "
         "the KKT system"),
    Rule(12, "piecewise linear terms below", "nlp", (c.NONSMOOTH, c.PIECEWISE_LINEAR),
         "{m} lower variables, with kinks that epigraphs remove: a quadratic program at every x"),
    Rule(12, "kinks below", "meha", (c.NONSMOOTH,),
         "the lower level has kinks: proximal steps take them"),
    Rule(13, "not convex, small", "exact", (c.NOT_CONVEX, c.SOME_LOWERS, c.NO_LONG_SUM),
         "the lower level is not known to be convex, and small: solved to global optimality"),
    Rule(13, "not convex, tiny", "nlp", (c.NOT_CONVEX, c.TINY, c.NO_LONG_SUM),
         "the lower level is not known to be convex: its conditions from several starts; claims "
         "are local"),
    Rule(13, "kinks, not convex, followed", "aid", (c.NOT_CONVEX, c.NONSMOOTH, c.FEW_UPPERS),
         "the lower level has kinks and is not known to be convex: one of its minimisers is "
         "followed by conjugate gradients, slopes on one side of a kink; claims are local"),
    Rule(16, "finite sum, not convex, kinks", "f2sa",
         (c.NOT_CONVEX, c.FINITE_SUM, c.NONSMOOTH, c.FREE_BELOW),
         "a sum over data with kinks that is not known to be convex: slopes of batches; nothing "
         "is claimed beyond the certificate"),
    Rule(13, "finite sum of few terms, not convex, large", "pbgd",
         (c.NOT_CONVEX, c.MANY_LOWERS, c.FEW_TERMS, c.FINITE_SUM, c.SMOOTH, c.FREE_BELOW),
         "{m} lower variables, a sum over few data that is not known to be convex: a penalty on "
         "its value, where no lower solve would end in time; claims are local"),
    Rule(16, "finite sum, not convex, large", "f2sa",
         (c.NOT_CONVEX, c.MANY_LOWERS, c.FINITE_SUM, c.SMOOTH, c.FREE_BELOW),
         "{m} lower variables, a sum over data that is not known to be convex: both levels move "
         "by batches, where no lower solve would end; nothing is claimed beyond the certificate"),
    Rule(13, "not convex, followed", "direct", (c.NOT_CONVEX, c.SMOOTH, c.SMALL),
         "the lower level is not known to be convex: one of its minimisers is followed by "
         "Newton's method; claims are local"),
    Rule(13, "not convex, followed by products", "aid", (c.NOT_CONVEX, c.SMOOTH),
         "the lower level is not known to be convex: one of its minimisers is followed by "
         "conjugate gradients; claims are local"),
    Rule(13, "not convex", "pbgd", (c.NOT_CONVEX,),
         "the lower level is not known to be convex: a penalty on its value; claims are local"),
    Rule(5, "large", "aid", (c.UNIQUE, c.KNOWN_CONDITION),
         "{m} lower variables, condition number about {kappa:.3g}: Newton and adjoint systems by"
         " conjugate gradients that share a preconditioner"),
    Rule(5, "large, condition unknown", "aid", (c.UNIQUE,),
         "{m} lower variables, condition number unknown: conjugate gradients stop by their "
         "residual"),
    Rule(6, "large, by Newton steps", "nbo", (c.UNIQUE,),
         "{m} lower variables: one Newton system serves response and adjoint"),
    Rule(7, "large, by quasi-Newton steps", "qnbo", (c.UNIQUE,),
         "{m} lower variables: few Hessian products, pairs of gradients in their place"),
    Rule(15, "finite sum", "saba", (c.UNIQUE, c.FINITE_SUM),
         "the objectives are sums over data: one batch a step, variances reduced by tables"),
    Rule(7, "gradients only", "f2ba", (c.UNIQUE,),
         "gradients of both objectives only: a penalty on the lower value"),
    Rule(15, "finite sum, few upper variables", "pzobo_s", (c.UNIQUE, c.FINITE_SUM, c.FEW_UPPERS),
         "the objectives are sums over data, and {n} upper variables: a path of batches per "
         "direction, gradients only"),
    Rule(13, "not convex, few lower variables", "bvfsm", (c.NOT_CONVEX, c.FEW_LOWERS),
         "{m} lower variables: restarts look for the global lower value; claims are local"),
    Rule(13, "weakly convex", "meha", (c.NOT_CONVEX,),
         "the lower level is not known to be convex: the Moreau envelope takes what is weakly so"),
    Rule(16, "finite sum, not convex", "f2sa", (c.NOT_CONVEX, c.FINITE_SUM, c.SMOOTH, c.FREE_BELOW),
         "the lower level is a sum over data and not known to be convex: a penalty on its value "
         "by batches; nothing is claimed beyond the certificate"),
    Rule(3, "few upper variables", "pzobo", (c.FEW_UPPERS,),
         "{n} upper variables: a lower solve per direction, no derivatives of the response"),
    Rule(3, "values only", "zo", (c.FEW_UPPERS, c.FEW_LOWERS),
         "{n} upper and {m} lower variables: differences of values where there are no "
         "derivatives"),
    Rule(1, "anything small", "exact", (c.ALWAYS,),
         "no gradient method takes this model: small ones are solved to global optimality"),
)
# fmt: on
