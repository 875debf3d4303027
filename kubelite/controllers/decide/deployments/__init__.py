"""The parts of a Deployment's decision. `owned.py` has its ReplicaSets, `limits.py` how many pods there may be,
`rolling.py` and `scaling.py` who gets how many, `revisions.py` which ReplicaSet is the new one, `progress.py` the
status."""
