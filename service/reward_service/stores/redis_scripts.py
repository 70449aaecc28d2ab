"""What Redis does in one step: Lua scripts, and how keys lie in the server.

    {rw}<key>    string   the value of each key
    {rw}         zset     the keys that do not expire, all of score 0, so that they can be listed in order

`{rw}` is a hash tag: a Redis Cluster keeps all keys in one slot, since only there a script may write several at once.
A full server (`maxmemory`) refuses a script at its first command that writes, if that one adds data: nothing of it is
written. After a deletion it refuses nothing: all of it is written.
"""

import hashlib
from dataclasses import dataclass, field

TAG = "{rw}"
INDEX = TAG

KEEP = b"="
DELETE = b"-"
WRITE = b"+"


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script; KEYS are always the index and then the keys of the call."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


PUT = Script("""
local ttl = ARGV[#ARGV]
for i = 2, #KEYS do
  if ttl == '' then
    redis.call('SET', KEYS[i], ARGV[i - 1])
    redis.call('ZADD', KEYS[1], 0, KEYS[i])
  else
    redis.call('SET', KEYS[i], ARGV[i - 1], 'PX', ttl)
    redis.call('ZREM', KEYS[1], KEYS[i])
  end
end
""")
"""ARGV: the values, then milliseconds to live or nothing."""

ADD = Script("""
local written = {}
for i = 2, #KEYS do
  written[i - 1] = redis.call('SET', KEYS[i], ARGV[i - 1], 'NX', 'PX', ARGV[#ARGV]) and 1 or 0
end
return written
""")
"""ARGV: the values, then milliseconds to live. Answers 1 for each key that it wrote and 0 for the others."""

REPLACE = Script("""
local n = #KEYS - 1
for i = 1, n do
  local value = redis.call('GET', KEYS[i + 1])
  if (value and redis.sha1hex(value) or '') ~= ARGV[i] then return 0 end
end
for i = 1, n do
  local key = KEYS[i + 1]
  if ARGV[n + i] == '-' then
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], key)
  end
end
for i = 1, n do
  local key, order = KEYS[i + 1], ARGV[n + i]
  if string.sub(order, 1, 1) == '+' then
    redis.call('SET', key, string.sub(order, 2))
    redis.call('ZADD', KEYS[1], 0, key)
  end
end
return 1
""")
"""ARGV: for each key the SHA-1 of the value that was read, or nothing; then `=`, `-` or `+` and the new value.

Answers 0 and writes nothing when a value is not as it was read. It deletes first, so that a full server can be emptied.
"""


def server_key(key: str) -> str:
    """Where a key lies in the server."""
    return TAG + key


def fingerprint(value: bytes | None) -> str:
    """What a script compares a value with."""
    return "" if value is None else hashlib.sha1(value, usedforsecurity=False).hexdigest()


def order(old: bytes | None, new: bytes | None) -> bytes:
    """What to do with a key whose value changes from `old` to `new`."""
    if new == old:
        return KEEP
    return DELETE if new is None else WRITE + new
