"""HAProxy with the file of the deployment, before two small servers; needs haproxy."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI, Request

from tests.deploy.running import Part, balancer
from tests.hosted.serving import listening
from tests.ports import HeldPort

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


@dataclass
class Replica:
    """Says who it is and which request ids it was sent."""

    port: int
    ids: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        app = FastAPI()

        @app.get("/health")
        async def health() -> str:
            return "ok"

        @app.get("/v1/models")
        async def models(request: Request) -> int:
            self.ids.append(request.headers["x-request-id"])
            return self.port

        with listening(app, self.port):
            yield


@dataclass(frozen=True)
class Balanced:
    """The balancer, and the replicas behind it."""

    url: str
    process: Part
    replicas: list[Replica]


@pytest.fixture
def balanced() -> Iterator[Balanced]:
    with ExitStack() as stack:
        public, inside, *ports = [stack.enter_context(HeldPort()).number for _ in range(4)]
        process = stack.enter_context(balancer(public, inside, ports))
        yield Balanced(f"http://127.0.0.1:{public}", process, [Replica(port) for port in ports])


def until(reached: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not reached():
        assert time.monotonic() < started + 60
        time.sleep(0.05)


def test_requests_are_shared_and_a_replica_that_is_gone_is_passed_over(balanced: Balanced) -> None:
    def asked() -> int:
        answer = httpx.get(f"{balanced.url}/v1/models", params={"prompt": "secret"})
        return int(answer.text) if answer.status_code == 200 else answer.status_code

    first, second = balanced.replicas
    with ExitStack() as stack:
        stack.enter_context(first.running())
        with second.running():
            until(lambda: {asked() for _ in range(4)} == {first.port, second.port})
        assert {asked() for _ in range(8)} == {first.port}
        with second.running():
            until(lambda: second.port in {asked() for _ in range(2)})
    assert "secret" not in "".join(balanced.process.lines)
    until(lambda: "method=GET path=/v1/models status=200" in "".join(balanced.process.lines))


def test_without_a_replica_the_answer_is_a_problem_that_a_client_repeats(balanced: Balanced) -> None:
    until(lambda: httpx.get(f"{balanced.url}/v1/models").status_code == 503)
    answer = httpx.get(f"{balanced.url}/v1/models")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["code"]) == (503, "no_replica")


def test_a_request_id_is_passed_on_or_made_and_the_metrics_are_not_reachable(balanced: Balanced) -> None:
    replica = balanced.replicas[0]
    with replica.running():
        until(lambda: httpx.get(f"{balanced.url}/health").status_code == 200)
        httpx.get(f"{balanced.url}/v1/models", headers={"x-request-id": "run-7/step-3"})
        httpx.get(f"{balanced.url}/v1/models")
        assert httpx.get(f"{balanced.url}/metrics").status_code == 404
    given, made = replica.ids[-2:]
    assert given == "run-7/step-3"
    assert len(made) == 36
