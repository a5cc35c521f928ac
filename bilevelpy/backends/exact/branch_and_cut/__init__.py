"""Followers that conditions do not settle: rounds of relaxations and cuts, or one tree."""
