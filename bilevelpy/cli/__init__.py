"""The command line: one command a module; heavy libraries are imported inside commands."""
