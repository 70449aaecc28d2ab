"""What a reload swaps, and what it leaves: over HTTP, with engines whose scores and failures the test decides."""

import asyncio

import httpx
import pytest

from reward_service.api.app import create_app
from reward_service.errors import NotReady
from tests.engine.fakes import until
from tests.reload.conftest import OBJECTIVE, Versioned, Versions, fingerprint, raws, versions


async def in_flight(served: Versions, response: str) -> "asyncio.Task[dict[str, object]]":
    """A request that has reached the engine."""
    calls = len(served.first.calls)
    task = asyncio.create_task(served.score(response))
    await until(lambda: len(served.first.calls) > calls)
    return task


async def test_a_reload_answers_with_the_model_as_it_was_and_as_it_is() -> None:
    async with versions(Versioned("one"), Versioned("two")) as served:
        answer = await served.reload()
        listed = (await served.http.get("/v1/models/m")).json()
    assert answer.status_code == 200
    body = answer.json()
    assert (body["before"]["fingerprint"], body["after"]["fingerprint"]) == ("one", "two")
    assert body["seconds"] >= 0
    assert listed == body["after"]


async def test_what_is_in_flight_is_answered_by_the_model_that_it_reached_which_closes_then() -> None:
    first, second = Versioned("one"), Versioned("two")
    first.gate = asyncio.Event()
    async with versions(first, second) as served:
        before = await in_flight(served, "1")
        assert (await served.reload()).status_code == 200
        after = await served.score("2")
        assert not first.closed
        first.gate.set()
        assert fingerprint(await before) == "one"
        assert fingerprint(after) == "two"
        await until(lambda: first.closed)
        assert not second.closed


async def test_references_that_are_scored_during_a_swap_are_stored_for_the_model_that_scored_them() -> None:
    first, second = Versioned("one"), Versioned("two")
    first.gate = asyncio.Event()
    entry = {"prompt": "p", "responses": [str(n) for n in range(8)]}
    asked = {"model": "m", "policy": "sft", "prompts": ["p"]}
    async with versions(first, second) as served:
        body = {"model": "m", "policy": "sft", "entries": [entry]}
        writing = asyncio.create_task(served.http.put("/v1/baselines", json=body))
        await until(lambda: len(first.calls) == 1)
        assert (await served.reload()).status_code == 200
        assert not first.closed
        first.gate.set()
        assert (await writing).status_code == 200
        found = (await served.http.post("/v1/baselines/query", json=asked)).json()
        assert found["baselines"][0]["count"] == 0  # they are those of "one"
        await until(lambda: first.closed)


async def test_a_baseline_of_the_old_weights_is_missing_under_the_new_ones() -> None:
    objective = OBJECTIVE.replace('"identity"', '"centered"\nbaseline = { policy = "sft" }')
    entry = {"prompt": "p", "rewards": [float(n) for n in range(8)]}
    async with versions(Versioned("one"), Versioned("two"), Versioned("one"), objective=objective) as served:
        await served.http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": [entry]})
        rewards, codes = [], []
        for _ in range(3):
            score = (await served.score("1"))["scores"][0]
            rewards.append(score["reward"])
            codes.append(None if score["error"] is None else score["error"]["code"])
            if len(rewards) < 3:
                await served.reload()
    assert rewards[0] is not None
    assert rewards == [rewards[0], None, rewards[0]]
    assert codes == [None, "baseline_missing", None]


async def test_canned_responses_are_scored_anew_by_the_new_weights() -> None:
    objective = OBJECTIVE.replace('"identity"', '"centered"\nbaseline = { response = "3" }')
    second = Versioned("two")
    async with versions(Versioned("one"), second, objective=objective) as served:
        assert (await served.score("5"))["scores"][0]["reward"] == 2.0
        await served.reload()
        assert (await served.score("5"))["scores"][0]["reward"] == 2.0
    assert sorted(str(item.messages[-1]["content"]) for call in second.calls for item in call if item.messages) == [
        "3",
        "5",
    ]


async def test_a_second_reload_of_a_model_is_refused_while_the_first_is_under_way() -> None:
    class Slow(Versioned):
        async def start(self) -> None:
            started.set()
            await go_on.wait()

    started, go_on = asyncio.Event(), asyncio.Event()
    async with versions(Versioned("one"), Slow("two"), Versioned("three")) as served:
        first = asyncio.create_task(served.reload())
        await started.wait()
        second = await served.reload()
        assert fingerprint(await served.score("1")) == "one"
        go_on.set()
        assert (await first).status_code == 200
        third = await served.reload()
    assert (second.status_code, second.json()["code"]) == (409, "reload_underway")
    assert third.json()["after"]["fingerprint"] == "three"


async def test_a_caller_that_leaves_does_not_stop_the_swap() -> None:
    class Slow(Versioned):
        async def start(self) -> None:
            started.set()
            await go_on.wait()

    started, go_on = asyncio.Event(), asyncio.Event()
    async with versions(Versioned("one"), Slow("two")) as served:
        asking = asyncio.create_task(served.reload())
        await started.wait()
        asking.cancel()
        await asyncio.wait([asking])
        go_on.set()
        await until(lambda: served.service.catalog["m"].fingerprint == "two")
        assert fingerprint(await served.score("1")) == "two"


async def test_a_model_that_cannot_be_loaded_leaves_the_old_one_and_says_why() -> None:
    broken = Versioned("two", hindrance=NotReady("model 'm' fails the parity check: its scores are noise"))
    async with versions(Versioned("one"), broken) as served:
        answer = await served.reload()
        assert fingerprint(await served.score("1")) == "one"
        assert (await served.http.get("/ready")).status_code == 200
        assert not served.first.closed
    assert (answer.status_code, answer.json()["code"]) == (409, "reload_failed")
    assert "its scores are noise; the model that was loaded serves on" in answer.json()["detail"]
    assert broken.closed


@pytest.mark.parametrize("labels", [("kind",), ("kind", "safe"), ("safe", "kind", "brief")])
async def test_a_model_whose_outputs_are_not_those_of_the_objectives_is_refused(labels: tuple[str, ...]) -> None:
    objective = (
        OBJECTIVE + '[[objectives.terms]]\nname = "by-name"\nmodel = "m"\nlabel = "brief"\ntransform = "identity"\n'
    )
    first, other = Versioned("one", ("kind", "safe", "brief")), Versioned("two", labels)
    async with versions(first, other, objective=objective) as served:
        answer = await served.reload()
        assert raws(await served.score("1 2 3")) == [1.0]
    assert answer.status_code == 409
    assert "the objectives do not fit model 'm' as it is now" in answer.json()["detail"]
    assert other.closed


async def test_an_output_that_has_moved_is_found_by_its_name() -> None:
    objective = OBJECTIVE.replace('"identity"', '"identity"\nlabel = "brief"')
    first, moved = Versioned("one", ("kind", "brief")), Versioned("two", ("brief", "kind"))
    async with versions(first, moved, objective=objective) as served:
        assert raws(await served.score("1 2")) == [2.0]
        assert (await served.reload()).status_code == 200
        assert raws(await served.score("1 2")) == [1.0]


async def test_an_expectation_names_the_model_that_answers() -> None:
    async with versions(Versioned("one"), Versioned("two")) as served:
        await served.score("1", expect={"models": {"m": "one"}})
        await served.reload()
        body = {"conversations": [{"text": "1"}], "expect": {"models": {"m": "one"}}}
        answer = await served.http.post("/v1/score", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "expectation_failed")


async def test_vllm_in_this_process_cannot_be_reloaded() -> None:
    async with versions(Versioned("one"), model='engine = "vllm"\n') as served:
        answer = await served.reload()
        assert fingerprint(await served.score("1")) == "one"
    assert (answer.status_code, answer.json()["code"]) == (409, "reload_failed")
    assert "start the service anew" in answer.json()["detail"]


async def test_what_is_not_there_or_not_asked_for_is_refused() -> None:
    async with versions(Versioned("one")) as served:
        unknown = await served.http.post("/v1/models/n/reload")
        more = await served.http.post("/v1/models/m/reload", json={"revision": "other"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")
    assert more.status_code == 422
    assert "revision" in more.json()["detail"]


async def test_an_empty_body_is_taken_too() -> None:
    async with versions(Versioned("one"), Versioned("two")) as served:
        assert (await served.http.post("/v1/models/m/reload", json={})).status_code == 200


async def test_a_service_that_ends_gives_a_reload_up() -> None:
    class Stuck(Versioned):
        async def start(self) -> None:
            started.set()
            await asyncio.Event().wait()

    started, stuck = asyncio.Event(), Stuck("two")
    async with versions(Versioned("one"), stuck) as served:
        transport = httpx.ASGITransport(create_app(served.service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            asking = asyncio.create_task(http.post("/v1/models/m/reload"))
            await started.wait()
            await served.service.reloads.close()
            await asyncio.wait([asking])
    assert stuck.closed
