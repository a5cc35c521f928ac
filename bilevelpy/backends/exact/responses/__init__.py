"""Followers at a point: their best responses, the leader's choice among them, cuts from them."""
