"""Keys of baselines: the canonical hash of a prompt, and where each thing lies in the store.

    policy/<policy>                             the policy's state, about 130 bytes
    rows/<fingerprint>/<policy>/<prompt>        the reference rows of a prompt
    snapshot/<fingerprint>/<policy>             the global snapshot, at most 4096 rows
    canned/<fingerprint>/<response and prompt>  the outputs for a canned response

<fingerprint> is `sha256:` and 64 hexadecimal digits, <prompt> the 64 digits of `prompt_key`, <response and prompt> 64
digits that hash both. A rows record takes 27 bytes, 24 for each write remembered (32 at most) and 24 + 8 x labels per
row (24 + 16 x labels if any row has a std), beside its key of about 150 bytes: with one label 2.1 kB for 64 rows and
8.2 kB for 256, the most that a prompt keeps.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_service.engine.engine import Message
from reward_service.errors import InvalidRequest

SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,255}")
Tools = Sequence[Mapping[str, Any]]
ROWS = "rows/"
SNAPSHOTS = "snapshot/"
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict)


@dataclass(frozen=True, slots=True)
class RowsKey:
    """The rows of one prompt (a `prompt_key`) by one model (its fingerprint) for one policy."""

    fingerprint: str
    policy: str
    prompt: str

    @property
    def store_key(self) -> str:
        """Where the rows lie in the store."""
        return rows_prefix(self.fingerprint, self.policy) + segment("prompt key", self.prompt)


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """The global snapshot of one policy by one model (its fingerprint)."""

    fingerprint: str
    policy: str

    @property
    def store_key(self) -> str:
        """Where the snapshot lies in the store."""
        return f"{SNAPSHOTS}{segment('fingerprint', self.fingerprint)}/{segment('policy', self.policy)}"


@dataclass(frozen=True, slots=True)
class CannedKey:
    """The outputs of one model (its fingerprint) for the canned `response` (its text) to a prompt (a `prompt_key`)."""

    fingerprint: str
    response: str
    prompt: str

    @property
    def store_key(self) -> str:
        """Where the outputs lie in the store."""
        return f"canned/{segment('fingerprint', self.fingerprint)}/{sha256([self.prompt, self.response])}"


def prompt_key(prompt: str | Sequence[Message], tools: Tools | None = None) -> str:
    """The hash of a prompt's messages and tools: 64 hexadecimal digits. A text equals one user message.

    A field of a message that is None counts as not given; no tools equal an empty list. What lies deeper is hashed as
    it is, since None means something in the arguments of a tool call and in a JSON schema. The order of fields does not
    matter.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        return sha256({"messages": [given(message) for message in messages], "tools": list(tools or ())})
    except RecursionError as error:
        raise InvalidRequest("the prompt's messages or tools are nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the prompt's messages or tools are not JSON: {error}") from error


def policy_key(policy: str) -> str:
    """Where the state of a policy lies in the store."""
    return f"policy/{segment('policy', policy)}"


def rows_prefix(fingerprint: str, policy: str) -> str:
    """What the keys of all rows of a policy by one model start with."""
    return f"{ROWS}{segment('fingerprint', fingerprint)}/{segment('policy', policy)}/"


def segment(what: str, text: str) -> str:
    """The text, or InvalidRequest when it cannot stand between the slashes of a key."""
    if not SEGMENT.fullmatch(text):
        raise InvalidRequest(f"{text!r} is not a {what}: letters, digits and . _ : @ + - only, 256 at most")
    return text


def given(message: Message) -> dict[str, Any]:
    """The message without its fields that are None, so that both spellings of "not given" are equal."""
    return {name: value for name, value in message.items() if value is not None}


def sha256(value: Any) -> str:
    """The SHA-256 of the value's canonical JSON, hexadecimal."""
    return hashlib.sha256(CANONICAL.encode(value).encode("utf-8", "surrogatepass")).hexdigest()
