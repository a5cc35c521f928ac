"""Objectives that are sums over data: batches, blocks from files, shares of processes."""
