"""Followers who want what the leader does not: zero-sum problems, and interdiction."""
