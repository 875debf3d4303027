"""The shutdown of the machine: pods end in time, and begin anew after the next start."""
