"""Who enters, who is told to come back and when: doors with a clock of the test's own."""

from dataclasses import dataclass, field

import pytest

from reward_service.engine.doors import MOST_IN_LINE, PATIENCE_S, Arrival, Door, Room
from reward_service.errors import Overloaded

SPEED = 100.0
LEFT_S = 30.0
BUDGET = 10**9


@dataclass
class Device:
    """A door before a device that computes 100 tokens a second while time passes."""

    now: float = 0.0
    speed: float = SPEED
    door: Door = field(init=False)

    def __post_init__(self) -> None:
        self.door = Door(lambda _: self.speed, lambda: self.now)

    def enters(self, key: int, tokens: int = 100, **how: object) -> float | None:
        """None when the request is let in; else the time that it was told."""
        try:
            self.door.enter(arrival(key, tokens), Room(BUDGET, 0, open=True))
        except Overloaded as refusal:
            return refusal.retry_after_s
        self.door.inside["m"] += tokens
        return None

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.door.inside["m"] = max(0, self.door.inside["m"] - round(self.speed * seconds))


def arrival(key: int, tokens: int, left_s: float = LEFT_S) -> Arrival:
    return Arrival(key=key, model="m", tokens=tokens, first=1, left_s=left_s)


def test_a_door_is_open_until_its_work_takes_a_third_of_the_time_that_a_caller_has() -> None:
    device = Device()
    told = [device.enters(key) for key in range(20)]
    assert told[:10] == [None] * 10
    assert None not in told[10:]
    assert device.door.work_s == 10.0


def test_each_in_line_is_told_when_those_before_it_have_been_let_in() -> None:
    device = Device()
    assert [device.enters(key, 500) for key in range(2)] == [None, None]
    assert [device.enters(key, 500) for key in range(2, 6)] == [5.0, 10.0, 15.0, 20.0]


def test_who_comes_back_when_it_was_told_is_let_in_and_newcomers_wait_behind() -> None:
    device = Device()
    for key in range(2):
        device.enters(key, 500)
    told = {key: device.enters(key, 500) for key in range(2, 6)}
    newcomers = 100
    for key, wait_s in told.items():
        assert wait_s is not None
        device.pass_s(wait_s - device.now - 0.5)
        newcomers += 1
        assert device.enters(newcomers, 500) is not None
        device.pass_s(0.5)
        assert device.enters(key, 500) is None


def test_one_that_does_not_come_back_holds_the_others_up_for_a_while_only() -> None:
    device = Device()
    for key in range(2):
        device.enters(key, 500)
    absent, told = device.enters(2, 500), device.enters(3, 500)
    assert absent is not None
    assert told is not None
    device.pass_s(told)
    assert device.enters(3, 500) is None
    device.pass_s(2 * absent + PATIENCE_S)
    assert device.enters(4, 500) is None
    assert device.enters(5, 500) is None


def test_nothing_stands_still_for_callers_that_never_come_back() -> None:
    device = Device()
    computed, key = 0.0, 0
    for _ in range(600):  # twice as much as it can compute, each asks once
        for _ in range(2):
            key += 1
            device.enters(key, 10)
        before = device.door.work_s
        device.pass_s(0.1)
        computed += before - device.door.work_s
    assert computed > 0.9 * 60
    assert device.door.work_s > 1.0


def test_a_request_of_any_size_is_let_in_at_last() -> None:
    device = Device()
    device.enters(0, 900)
    told = device.enters(1, 100_000)
    assert told is not None
    device.pass_s(told)
    assert device.enters(1, 100_000) is None


def test_a_request_that_allows_little_time_is_let_in_while_little_waits() -> None:
    device = Device()
    device.door.enter(arrival(1, 50, left_s=0.1), Room(BUDGET, 0, open=True))


def test_what_goes_first_behind_another_door_counts_for_half_of_the_time_at_most() -> None:
    device = Device()
    assert device.enters(0, 450) is None
    with pytest.raises(Overloaded) as caught:
        device.door.enter(arrival(1, 150), Room(BUDGET, 0, open=True), urgent_s=20.0)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    device.pass_s(1.0)
    device.door.enter(arrival(1, 150), Room(BUDGET, 0, open=True), urgent_s=20.0)


def test_without_room_a_caller_is_told_when_there_is_some() -> None:
    device = Device()
    room = Room(1000, 1000, open=False)
    for key, told in ((1, 2.0), (2, 4.0)):
        with pytest.raises(Overloaded) as caught:
            device.door.enter(Arrival(key=key, model="m", tokens=200, first=200, left_s=LEFT_S), room)
        assert caught.value.retry_after_s == pytest.approx(told)


def test_nobody_is_told_less_than_a_second_and_an_unknown_speed_turns_nobody_away_for_its_time() -> None:
    device = Device(speed=0.0)
    assert device.enters(1, 10**9) is None
    with pytest.raises(Overloaded) as caught:
        device.door.enter(arrival(2, 10), Room(100, 100, open=False))
    assert caught.value.retry_after_s == 1.0


def test_the_line_is_bounded() -> None:
    device = Device()
    device.enters(0, 1000)
    told = [device.enters(key, 1) for key in range(1, 2 * MOST_IN_LINE)]
    assert len(device.door._line) == MOST_IN_LINE
    assert None not in told
