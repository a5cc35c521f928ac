"""Structure analysis: facts about a bound model, each with its evidence, reason and place.

``analyze`` makes the ``structure`` of a program. What it asks:

- Is a level convex? ``terms`` splits objectives, ``convexity`` judges the terms, ``curvature`` puts
  the verdicts together.
- How strongly? ``convexity`` and ``eigenvalues``, with bounds by ``ranges``, ``signs``, ``least``.
- What shape has it? ``form`` (degrees), ``smooth`` and ``epigraphs`` (kinks), ``separable``
  (blocks, sums), ``predictors``, ``banded``.
- What do points show? ``probe``, against what ``declared`` holds of ``assume``.
"""

from bilevelpy.analysis.analyze import analyze
from bilevelpy.analysis.explain import describe, to_json
from bilevelpy.analysis.probe import ProbeOracle
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
