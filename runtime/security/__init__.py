"""Restrictions on a container's process: capabilities, seccomp, rlimits, masked paths. One module each."""
