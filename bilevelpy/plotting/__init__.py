"""Figures, drawn from arrays: runs, landscapes, responses, networks, images. Needs the extra
``plot``; the only home of matplotlib.
"""

from bilevelpy.plotting.curves import convergence

__all__ = ["convergence"]
