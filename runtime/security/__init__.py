"""What a container's process may do: capabilities, seccomp, rlimits, hidden paths. One module each."""
