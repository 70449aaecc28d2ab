"""How a kept score lies in the store: every bit comes back, or nothing does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reward_service.engine.score_records import Kept, pack, unpack

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5)


@given(NUMBERS, st.floats(0, 1e10))
def test_a_record_gives_back_every_bit(numbers: list[float], since: float) -> None:
    outputs = np.array(numbers)
    found = unpack("score/x", pack("score/x", Kept(outputs, since)))
    assert found is not None
    assert (found.outputs.tobytes(), found.since) == (outputs.tobytes(), since)


@given(NUMBERS, st.data())
def test_a_record_with_any_byte_changed_added_or_lost_is_refused(numbers: list[float], data: st.DataObject) -> None:
    record = pack("score/x", Kept(np.array(numbers), 1.0))
    place = data.draw(st.integers(0, len(record) - 1))
    changed = record[:place] + bytes([record[place] ^ data.draw(st.integers(1, 255))]) + record[place + 1 :]
    assert unpack("score/x", changed) is None
    assert unpack("score/x", record[:place]) is None
    assert unpack("score/x", record + b"\0") is None
    assert unpack("score/y", record) is None


def test_a_record_that_is_not_finite_is_refused() -> None:
    assert unpack("score/x", pack("score/x", Kept(np.array([np.nan]), 1.0))) is None
