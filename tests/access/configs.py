"""Configurations of the tests, and the keys that open them."""

import hashlib
from collections.abc import Sequence

MODEL = """
[store]
url = "memory://"
[[models]]
name = "m"
source = "org/m"
[[objectives]]
name = "o"
aggregate = "mean"
[[objectives.terms]]
model = "m"
transform = "identity"
"""
KEYS = {scope: f"rs_key-of-{scope}" for scope in ("score", "baselines", "metrics", "admin")}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key_table(name: str, key: str, scopes: Sequence[str]) -> str:
    """`[[api_keys]]` of one key."""
    return f'[[api_keys]]\nname = "{name}"\nsha256 = "{digest(key)}"\nscopes = {list(scopes)}\n'


def with_keys() -> str:
    """The model behind one key for each scope."""
    return MODEL + "".join(key_table(f"holder-of-{scope}", key, [scope]) for scope, key in KEYS.items())


def with_limits(**limits: float) -> str:
    """The model behind these limits."""
    return "[limits]\n" + "".join(f"{name} = {value}\n" for name, value in limits.items()) + MODEL
