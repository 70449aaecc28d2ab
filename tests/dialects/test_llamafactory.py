"""LLaMA-Factory checks no status and asks once: an error must stop it, and a full service must not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dialects.conversations import ORDINARY, Sample
from tests.dialects.trainers import LLAMA_FACTORY
from tests.overload import Texts, patient_callers, queued_tokens, service_toml
from tests.process import ServiceProcess


def as_the_trainer_reads(answer: httpx.Response) -> Any:
    """`get_rewards_from_server` of LLaMA-Factory 0.9."""
    return json.loads(answer.text)["scores"]


def test_the_scores_are_in_the_order_of_the_texts(http: httpx.Client) -> None:
    forward = as_the_trainer_reads(LLAMA_FACTORY.post(http, "both", ORDINARY))
    backward = as_the_trainer_reads(LLAMA_FACTORY.post(http, "both", ORDINARY[::-1]))
    assert forward == pytest.approx(backward[::-1], abs=1e-9)
    assert len(set(forward)) == len(ORDINARY)


def test_an_error_stops_the_trainer(http: httpx.Client) -> None:
    for objective, sample in (("broken", Sample("~")), ("unknown", ORDINARY[0]), ("whole", Sample("cut", ended=False))):
        with pytest.raises(KeyError, match="scores"):
            as_the_trainer_reads(LLAMA_FACTORY.post(http, objective, [sample]))


def test_a_text_is_not_prompt_and_response_apart(http: httpx.Client) -> None:
    answer = LLAMA_FACTORY.post(http, "both", ORDINARY, "?input=messages")
    assert answer.status_code == 422
    assert "messages[0]: input=messages needs the prompt apart" in answer.json()["detail"]


async def test_a_burst_of_ranks_against_a_full_service_is_answered_without_a_retry(tmp_path: Path) -> None:
    texts = Texts(30)

    def batch(rank: int) -> dict[str, Any]:
        said = [one["response"] for one in texts.request(16)["conversations"]]
        return {"model": "model", "messages": [Sample(f"{rank} {words}").rendered for words in said]}

    config = service_toml(tmp_path, max_queued_tokens=2048, request_timeout_s=600)
    with ServiceProcess(config) as service:
        await patient_callers(service.url, [[texts.request(16)]])
        async with httpx.AsyncClient(base_url=service.url, timeout=600) as http:
            answers = await asyncio.gather(*(http.post(LLAMA_FACTORY.url("one"), json=batch(i)) for i in range(24)))
            metrics = (await http.get("/metrics")).text
        assert await queued_tokens(service.url) == 0
    assert [len(as_the_trainer_reads(answer)) for answer in answers] == [16] * 24
    assert 'route="/llamafactory/{objective}",status="200"} 24.0' in metrics
    assert 'status="429"' not in metrics
