"""Lower levels over semidefinite matrices, and programs over cones."""
