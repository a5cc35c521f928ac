"""Structure analysis: facts about a bound model, each with its evidence, reason and place.

``analyze`` makes the ``structure`` of a program. What it asks:

- Is a level convex, and how strongly? ``convexity`` judges its terms, ``curvature`` puts the
  verdicts together.
- What shape has it? ``forms``: degrees, terms, blocks, sums, predictors, kinks.
- Between what limits do its expressions lie? ``bounds``: ranges, least values, signs.
- What do points show? ``probing``, against what ``declared`` holds of ``assume``.
"""

from bilevelpy.analysis.analyze import analyze
from bilevelpy.analysis.explain import describe, to_json
from bilevelpy.analysis.probing.probe import ProbeOracle
from bilevelpy.analysis.structure import Evidence, Fact, LevelFacts, Structure

__all__ = [
    "Evidence",
    "Fact",
    "LevelFacts",
    "ProbeOracle",
    "Structure",
    "analyze",
    "describe",
    "to_json",
]
