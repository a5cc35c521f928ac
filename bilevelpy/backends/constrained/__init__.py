"""Methods for lower levels with rows or semidefinite matrices."""
