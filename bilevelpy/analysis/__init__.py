"""Structure analysis: facts about a bound model, each with its evidence, reason and place."""

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
