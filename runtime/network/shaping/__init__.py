"""Limits of pods' bandwidth. limits.py finds the pods that have a limit; qdiscs.py sets it in the kernel, and is loaded
with the first such pod."""
