"""Many solves of one model: backends side by side, and grids in parallel processes."""
