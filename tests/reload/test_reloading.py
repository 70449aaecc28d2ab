"""Reloads of real models: from folders that change, that are half-written, and under load."""

import asyncio
import gc
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reward_service.demo import FOLDER, MODELS
from tests.engine.fakes import until
from tests.process import ServiceProcess
from tests.reload.conftest import MEMORY, MODEL, OBJECTIVE, Served, fingerprint, point, raws, serving
from tests.reload.swapping import swapped_under_load

DEMO = [FOLDER / "models" / name for name in MODELS]


@dataclass(frozen=True)
class Linked:
    """A service process with the model behind a link."""

    url: str
    link: Path


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, folders: tuple[Path, Path]) -> Iterator[Linked]:
    """One for the tests that need a process."""
    root = tmp_path_factory.mktemp("linked")
    link = point(root / "model", folders[0])
    (root / "service.toml").write_text("[server]\nport = 0\n" + MEMORY + MODEL.format(source=link) + OBJECTIVE)
    with ServiceProcess(root / "service.toml") as service:
        yield Linked(service.url, link)


async def refused(served: Served) -> str:
    """Why a reload was refused; the model that was loaded must answer as before."""
    before = await served.score("an answer", cache=False)
    answer = await served.reload()
    after = await served.score("an answer", cache=False)
    assert (answer.status_code, answer.json()["code"]) == (409, "reload_failed"), answer.text
    assert fingerprint(after) == fingerprint(before)
    assert raws(after) == pytest.approx(raws(before), abs=1e-6)
    return str(answer.json()["detail"])


async def test_no_request_is_dropped_and_every_answer_is_of_its_fingerprint(
    linked: Linked, folders: tuple[Path, Path]
) -> None:
    async with httpx.AsyncClient(base_url=linked.url, timeout=60) as http:
        seen = await swapped_under_load(http, linked.link, folders, reloads=4)
    assert len(seen) == 2
    assert min(seen.values()) >= 5


async def test_files_that_are_replaced_in_place_are_read_anew(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    source = Path(shutil.copytree(folders[0], tmp_path / "model"))
    async with serving(source) as served:
        first = await served.score("an answer")
        shutil.copy(folders[1] / "model.safetensors", source / "model.safetensors")
        kept = await served.score("another answer", cache=False)
        assert (await served.reload()).status_code == 200
        second = await served.score("an answer")
    async with serving(folders[1]) as served:
        expected = await served.score("an answer")
    async with serving(folders[0]) as served:
        before = await served.score("another answer")
    assert fingerprint(second) == fingerprint(expected) != fingerprint(first)
    assert raws(second) == pytest.approx(raws(expected), abs=1e-6)
    assert raws(kept) == pytest.approx(raws(before), abs=1e-6)  # overwritten files change nothing that is loaded


async def test_a_reload_of_the_same_files_is_the_same_model(link: Path) -> None:
    async with serving(link) as served:
        before = await served.score("an answer", cache=False)
        answer = (await served.reload()).json()
        after = await served.score("an answer", cache=False)
    assert answer["before"] == answer["after"]
    assert raws(after) == raws(before)


async def test_half_written_weights_are_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    source = Path(shutil.copytree(folders[0], tmp_path / "model"))
    whole = (folders[1] / "model.safetensors").read_bytes()
    async with serving(source) as served:
        for part in (len(whole) // 2, 100, 0):
            (tmp_path / "part").write_bytes(whole[:part])
            (tmp_path / "part").replace(source / "model.safetensors")
            assert "cannot be loaded" in await refused(served)
        (source / "model.safetensors").unlink()
        assert "holds no safetensors weights" in await refused(served)
        (source / "config.json").write_text("{")
        await refused(served)
        shutil.rmtree(source)
        await refused(served)


async def test_a_folder_that_is_written_to_while_it_is_read_is_refused(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    source = Path(shutil.copytree(folders[0], tmp_path / "model"))
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.002):
            os.utime(source / "model.safetensors")

    async with serving(source) as served:
        writing = threading.Thread(target=write)
        writing.start()
        try:
            assert "changed while it was read" in await refused(served)
        finally:
            stop.set()
            writing.join()
        assert (await served.reload()).status_code == 200


async def test_the_memory_of_the_old_model_is_freed(link: Path, folders: tuple[Path, Path]) -> None:
    async with serving(link) as served:
        await served.score("an answer")
        engine = served.service.catalog["m"].engine
        model = weakref.ref(engine._lane.forward._model)  # type: ignore[attr-defined]
        del engine
        gc.freeze()  # as the service does once it has started
        try:
            point(link, folders[1])
            assert (await served.reload()).status_code == 200
            await until(lambda: model() is None)
            await until(lambda: gc.get_freeze_count() > 0)  # frozen again, a moment later
        finally:
            gc.unfreeze()


def test_a_caller_that_hangs_up_does_not_stop_the_swap(linked: Linked, folders: tuple[Path, Path]) -> None:
    with httpx.Client(base_url=linked.url, timeout=30) as http:
        before = http.get("/v1/models/m").json()["fingerprint"]
        point(linked.link, folders[linked.link.resolve() == folders[0]])
        with suppress(httpx.ReadTimeout):  # a caller that stood still for long may find its answer
            http.post("/v1/models/m/reload", timeout=httpx.Timeout(30, read=0.02))
        deadline = time.monotonic() + 60
        while http.get("/v1/models/m").json()["fingerprint"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def test_reloads_leave_the_queue_empty_and_its_threads_alone(link: Path, folders: tuple[Path, Path]) -> None:
    async with serving(link) as served:
        threads = threading.active_count()
        for number in range(4):
            point(link, folders[number % 2])
            assert (await served.reload()).status_code == 200
            await served.score(*[f"answer {n}" for n in range(16)])
        await until(lambda: threading.active_count() <= threads + 4)  # those that render start as they are needed
        async with asyncio.timeout(30):
            while 'reward_service_queued_tokens{device="cpu"} 0.0' not in (await served.http.get("/metrics")).text:
                await asyncio.sleep(0.01)
