"""One part of a split call fails: the caller learns why, and nothing of the call holds the process back."""

import subprocess
import sys
import threading
import time

import httpx
import pytest

from reward_service.client import Client, RequestFailed
from tests.client.scripted import A, B, Body, ask, conversation, problem, served

REFUSED = [conversation(1.0, prompt="refused") for _ in range(8)]
LIMIT_S = 30
SPLIT_AND_REFUSED = """
import sys
from reward_service.client import Client

asked = [{"prompt": prompt, "response": "1"} for prompt in ("silent", "refused")]
Client(sys.argv[1], max_conversations_per_request=1).score(asked)
"""


def is_of(request: httpx.Request, prompt: str) -> bool:
    """Whether the request has a conversation with this prompt."""
    return f'"{prompt}"'.encode() in request.content


@pytest.mark.parametrize("_", range(5))
def test_the_refusal_of_a_part_of_a_part_reaches_the_caller_while_other_parts_wait(_: int) -> None:
    others = 8
    all_wait = threading.Barrier(others + 1)

    def answer(request: httpx.Request) -> httpx.Response:
        if not is_of(request, "refused"):
            all_wait.wait(LIMIT_S)
            return problem(503, "not_ready", {"retry-after": "20"})
        if request.content.count(b'"refused"') == len(REFUSED):
            all_wait.wait(LIMIT_S)
        if request.content.count(b'"refused"') > 1:
            return problem(413, "too_large")
        time.sleep(0.05)  # the others have come from their answer to their wait by now
        return problem(401, "unauthorized")

    asked: list[Body] = [conversation(1.0, prompt=f"p{i // 8}") for i in range(8 * others)]
    with pytest.raises(RequestFailed, match="401 unauthorized"):
        ask("sync", answer, "score", [*REFUSED, *asked], max_conversations_per_request=8)


def test_a_process_ends_though_another_part_of_a_failed_call_is_under_way() -> None:
    over = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if is_of(request, "silent"):
            over.wait(4 * LIMIT_S)
        return problem(401, "unauthorized")

    with served(answer) as url:
        line = [sys.executable, "-c", SPLIT_AND_REFUSED, url]
        try:
            ended = subprocess.run(line, stderr=subprocess.PIPE, text=True, timeout=2 * LIMIT_S, check=False)
        finally:
            over.set()
    assert "RequestFailed: 401 unauthorized" in ended.stderr


def test_nothing_is_sent_any_more_for_a_call_that_has_failed() -> None:
    under_way, over = threading.Event(), threading.Event()
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if is_of(request, "refused"):
            assert under_way.wait(LIMIT_S)
            return problem(401, "unauthorized")
        under_way.set()
        assert over.wait(LIMIT_S)
        raise httpx.ConnectError("gone")  # the other replica would be asked at once

    asked = [REFUSED[0], conversation(1.0, prompt="lost")]
    with Client([A, B], transport=httpx.MockTransport(answer), max_conversations_per_request=1) as client:
        before = set(threading.enumerate())
        with pytest.raises(RequestFailed, match="401 unauthorized"):
            client.score(asked)
        threads = [one for one in set(threading.enumerate()) - before if not one.name.endswith("waiting")]
        over.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert len(sent) == 2
