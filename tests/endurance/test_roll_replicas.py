"""A server that is killed with submissions of ROLL under way: each has its result or is told to be lost, elsewhere."""

import signal
import time
from pathlib import Path
from typing import Any

import httpx

from tests.dialects.conversations import QUESTION, Sample
from tests.dialects.test_roll import RESULT, SUBMIT, scored, task
from tests.process import ServiceProcess, demo_toml

SUBMISSIONS = 600
SAMPLES = [Sample(f"Giraffe number {i} is {i} metres tall, as far as anybody knows. " * 8) for i in range(SUBMISSIONS)]


def ask(http: httpx.Client, name: str) -> Any:
    return http.request("GET", RESULT.format("both"), json={"reward_request_id": name}).json()


def test_no_submission_is_awaited_for_ever_or_has_a_wrong_number(tmp_path: Path) -> None:
    config = demo_toml(tmp_path)
    with ServiceProcess(config) as one, ServiceProcess(config) as other:
        with httpx.Client(base_url=one.url, timeout=60) as http:
            answers = [http.post(SUBMIT.format("both"), json=task(sample)) for sample in SAMPLES]
            names = [answer.json()["reward_request_id"] for answer in answers]
            one.ended_by(signal.SIGKILL)
        with httpx.Client(base_url=other.url, timeout=60) as http:
            killed = time.monotonic()
            results = {name: ask(http, name) for name in names}
            while any(result["errcode"] == 1 for result in results.values()):
                assert time.monotonic() - killed < 60
                time.sleep(0.5)
                results |= {name: ask(http, name) for name, result in results.items() if result["errcode"] == 1}
            ended_s = time.monotonic() - killed
            rewards = [results[name]["reward_score"] for name in names]
            lost = rewards.count(None)
            again = [http.post(SUBMIT.format("both"), json=task(sample)) for sample in SAMPLES]
            for i, answer in enumerate(again):
                name = answer.json()["reward_request_id"]
                while (result := ask(http, name))["errcode"] == 1:
                    pass
                assert rewards[i] is None or abs(rewards[i] - result["reward_score"]) < 1e-9
            for i in range(0, SUBMISSIONS, 50):
                messages = [*QUESTION, {"role": "assistant", "content": SAMPLES[i].response}]
                expected = scored(http, {"messages": messages})["reward"]
                assert rewards[i] is None or abs(rewards[i] - expected) < 1e-9
    print(f"{SUBMISSIONS - lost} results, {lost} lost and told so, the last {ended_s:.1f} s after the kill")
    assert lost < SUBMISSIONS
