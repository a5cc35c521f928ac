"""What the process has from its machine: files, memory, time, signals, the garbage collector."""
