"""The conformance suite for backends: problems with known answers, and the promises of the
protocol.
"""

from __future__ import annotations

from bilevelpy.testing.cases import CASES, Case
from bilevelpy.testing.outcomes import Outcome, Report
from bilevelpy.testing.suite import check_backend

__all__ = ["CASES", "Case", "Outcome", "Report", "check_backend"]
