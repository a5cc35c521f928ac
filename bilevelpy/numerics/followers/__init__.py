"""Followers whose best responses are found at once, or chosen among by the leader."""
