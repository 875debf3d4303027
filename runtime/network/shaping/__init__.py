"""The bandwidth of pods: limits.py says which pods have a limit, qdiscs.py carries it out, and is loaded with the first
of them."""
