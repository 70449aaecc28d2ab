"""What worker processes of a test run; it imports little, since each of them begins anew."""

import os

from reward_service.client.trainers.connecting import Connection
from reward_service.client.trainers.rollouts import conversation

ONE = [conversation("How tall is a giraffe?", "About five metres.")]


def scored(connection: Connection) -> tuple[int, float | None]:
    """The process, and the reward that it got."""
    return os.getpid(), connection.score(ONE).rewards[0]
