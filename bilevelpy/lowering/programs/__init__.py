"""Expressions of the IR as functions of tensors or arrays: graphs, kernels, derivatives."""
