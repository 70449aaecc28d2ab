"""Scoring jobs over files: read, score, write in order, and go on after any end."""

from reward_service.jobs.plan import JobPlan
from reward_service.jobs.running import Job, Progress, opened
from reward_service.jobs.scorers import Scorer, ServerScorer, ServiceScorer

__all__ = ["Job", "JobPlan", "Progress", "Scorer", "ServerScorer", "ServiceScorer", "opened"]
