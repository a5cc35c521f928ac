"""Speed and memory next to hand-written code, in one run: ``python -m benchmarks``."""
