"""More load than a service can take: callers that come back when they are told, and arrivals that wait for nobody."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from reward_service.demo import FOLDER, MODELS

WORDS = ["how", "tall", "is", "a", "giraffe", "about", "five", "metres", "the", "largest", "animal", "on", "land"]


def service_toml(folder: Path, *, max_queued_tokens: int, request_timeout_s: float) -> Path:
    """A service with the demo's models, `m` for an objective of one term and both for one of two."""
    text = '[server]\nport = 0\n[store]\nurl = "memory://"\n'
    text += f"[limits]\nmax_queued_tokens = {max_queued_tokens}\nrequest_timeout_s = {request_timeout_s}\n"
    for name, folder_name in zip(("m", "n"), MODELS, strict=True):
        source = FOLDER / "models" / folder_name
        text += (
            f'[[models]]\nname = "{name}"\nsource = "{source}"\ndevice = "cpu"\ndtype = "float32"\nparity = "self"\n'
        )
    for name, models in (("one", "m"), ("both", "mn")):
        text += f'[[objectives]]\nname = "{name}"\naggregate = "mean"\n'
        text += "".join(f'[[objectives.terms]]\nmodel = "{model}"\ntransform = "identity"\n' for model in models)
    file = folder / "service.toml"
    file.write_text(text)
    return file


class Texts:
    """Conversations that were never sent before, of about so many words."""

    def __init__(self, words: int, seed: int = 0) -> None:
        self._words = words
        self._chance = random.Random(seed)
        self._numbers = itertools.count()

    def request(self, conversations: int, objective: str = "one", **more: Any) -> dict[str, Any]:
        asked = [self._conversation() for _ in range(conversations)]
        return {"objective": objective, "conversations": asked, **more}

    def _conversation(self) -> dict[str, str]:
        words = self._chance.choices(WORDS, k=self._words)
        return {"prompt": "How tall is a giraffe?", "response": f"{next(self._numbers)} {' '.join(words)}"}


@dataclass
class Visit:
    """One request until it is answered: when it was first sent, what it was told, when it was let in and answered."""

    began: float
    told_s: list[float] = field(default_factory=list)
    entered: float = 0.0
    ended: float = 0.0
    status: int = 0
    rewards: list[float | None] = field(default_factory=list)

    @property
    def total_s(self) -> float:
        return self.ended - self.began

    @property
    def waited_s(self) -> float:
        """Until it was let in."""
        return self.entered - self.began


async def visit(http: httpx.AsyncClient, body: dict[str, Any], *, patient: bool) -> Visit:
    """Sends a request; who is `patient` comes back each time after the time that it was told, and a little."""
    one = Visit(time.monotonic())
    while True:
        one.entered = time.monotonic()
        response = await http.post("/v1/score", json=body)
        one.ended, one.status = time.monotonic(), response.status_code
        if response.status_code != 429:
            break
        one.told_s.append(float(response.headers["retry-after"]))
        if not patient:
            break
        await asyncio.sleep(one.told_s[-1] * random.uniform(1.0, 1.1))
    if response.status_code == 200:
        one.rewards = [score["reward"] for score in response.json()["scores"]]
    return one


async def patient_callers(url: str, requests: Sequence[Sequence[dict[str, Any]]]) -> list[list[Visit]]:
    """Each caller sends its requests one after the other."""

    async def call(mine: Sequence[dict[str, Any]]) -> list[Visit]:
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:
            return [await visit(http, body, patient=True) for body in mine]

    return await asyncio.gather(*(call(mine) for mine in requests))


Make = Callable[[], dict[str, Any]]


async def capacity(url: str, request: Make, seconds: float, callers: int = 6) -> float:
    """Requests per second that callers get who each send one after the other."""
    started = time.monotonic()

    async def call() -> list[Visit]:
        visits = []
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:
            while time.monotonic() < started + seconds:
                visits.append(await visit(http, request(), patient=True))
        return visits

    visits = [one for mine in await asyncio.gather(*(call() for _ in range(callers))) for one in mine]
    return sum(one.status == 200 for one in visits) / (time.monotonic() - started)


async def arrivals(url: str, request: Make, *, per_s: float, seconds: float, returning: float = 0.0) -> list[Visit]:
    """Requests that come at random times, whether or not the ones before are answered.

    `returning` is the share of callers that come back when they are told to.
    """
    chance = random.Random(1)
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http, asyncio.TaskGroup() as group:
        tasks, due, end = [], time.monotonic(), time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            patient = chance.random() < returning
            tasks.append(group.create_task(visit(http, request(), patient=patient)))
            due += chance.expovariate(per_s)
    return [task.result() for task in tasks]


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


async def watched_memory(pid: int, every_s: float = 0.5) -> "tuple[asyncio.Task[None], list[float]]":
    """A task that notes the memory of a process, MiB, until it is cancelled."""
    seen: list[float] = []

    async def watch() -> None:
        while True:
            seen.append(resident_mib(pid))
            await asyncio.sleep(every_s)

    return asyncio.create_task(watch()), seen


async def queued_tokens(url: str) -> float:
    """What the metrics say of the queue: 0 as soon as it is empty, or what is left of it after 30 s."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for _ in range(150):
            lines = (await http.get("/metrics")).text.splitlines()
            queued = sum(float(line.split()[-1]) for line in lines if line.startswith("reward_service_queued_tokens{"))
            if not queued:
                break
            await asyncio.sleep(0.2)
    return queued


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
