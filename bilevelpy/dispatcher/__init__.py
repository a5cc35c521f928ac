"""The dispatcher: which backend solves a model of a given structure, and why not the others."""

from bilevelpy.dispatcher.decision import Decision, Rejection
from bilevelpy.dispatcher.dispatch import dispatch
from bilevelpy.dispatcher.escalation import successor
from bilevelpy.dispatcher.rule import Rule
from bilevelpy.dispatcher.rules import RULES

__all__ = ["RULES", "Decision", "Rejection", "Rule", "dispatch", "successor"]
