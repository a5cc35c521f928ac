"""Leaders of their own kind: few choices, or a pessimistic stance."""
