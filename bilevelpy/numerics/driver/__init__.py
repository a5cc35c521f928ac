"""The outer loop around any backend, and what a run keeps, shows and carries on."""
