"""Score conversations, and keep the references they are compared with: the one path for every caller."""

from reward_service.scoring.scoring import Scoring
from reward_service.scoring.stored import StoredReferences

__all__ = ["Scoring", "StoredReferences"]
