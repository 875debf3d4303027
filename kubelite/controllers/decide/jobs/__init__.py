"""The parts of the decision about a Job (kubelite/controllers/decide/job.py)."""
