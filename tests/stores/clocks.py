"""Time that passes only when a test says so, for every kind of store."""

from typing import Protocol

from tests.redis_server import RedisServer

PATIENT_S = 30.0
"""How long a store waits for Redis where its patience is not what a test is about."""

AGE_ALL = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
"""


class Clock(Protocol):
    """A clock that a test moves."""

    async def advance(self, seconds: float) -> None:
        """Let time pass."""


class SetClock:
    """A clock that a store is given."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


class RedisClock:
    """Takes the time that passes from what each key of the server has left: its own clock cannot be set."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def advance(self, seconds: float) -> None:
        self._server.command("EVAL", AGE_ALL, 0, round(1000 * seconds))
