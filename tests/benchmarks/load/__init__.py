"""The load generator: a process of its own, told over stdin what to do, one JSON line each."""
