"""Many processes as one job. `connect` joins them, `job` is this process's place in it."""
from vlmjax.hosts.job import GRACE, TERMINATED, Job
from vlmjax.hosts.meeting import connect, job

__all__ = ["GRACE", "TERMINATED", "Job", "connect", "job"]
