"""Good points, with or without a proof: local solutions, searches, sharper values."""
