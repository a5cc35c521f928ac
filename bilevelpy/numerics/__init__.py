"""Algorithms on flat vectors: linear and lower solves, hypergradients, the upper optimizer,
driver, certificate.
"""
