"""The bundled models in a real vLLM, in this process and over HTTP, beside Transformers and the torch engine."""

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward_service.demo import FOLDER, MODELS
from reward_service.engine.engine import Estimate, Item, Priority
from reward_service.errors import NotReady
from tests.conversations import DATA, real_conversations
from tests.engine.serving import results, serving
from tests.hosted.serving import listening
from tests.process import ServiceProcess
from tests.vllm.serving import ENVIRONMENT, VllmServer, children, spoiling, still_running

Scores = NDArray[np.float64]
COUNT = 500
NOISE_COUNT = 100
MAX_TOKENS = 2048
NOISES = 3.0
"""vLLM may be so many times as far from float32 as bfloat16 takes Transformers itself."""


def conversations() -> list[list[dict[str, Any]]]:
    """Real ones where the data is; else as many that are made up."""
    if DATA.is_dir():
        return real_conversations(COUNT)
    words = ["the", "a", "of", "bird", "tree", "river", "city", "answer", "question", "because", "perhaps", "always"]
    chosen = np.random.default_rng(0)
    return [
        [
            {"role": "user", "content": " ".join(chosen.choice(words, 3 + n % 60))},
            {"role": "assistant", "content": " ".join(chosen.choice(words, 1 + n % 150))},
        ]
        for n in range(COUNT)
    ]


def transformers_scores(folder: Path, rows: list[list[dict[str, Any]]], dtype: torch.dtype) -> Scores:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=dtype).eval()
    found = []
    with torch.inference_mode():
        for messages in rows:
            ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
            found.append(model(input_ids=torch.tensor([ids])).logits[0, 0].item())
    return np.array(found)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [Item(messages=messages) for messages in conversations()]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(model: str) -> Path:
    return FOLDER / "models" / model


@pytest.fixture(scope="module")
def reference(folder: Path, items: list[Item]) -> Scores:
    """Transformers in float32, one conversation at a time."""
    return transformers_scores(folder, [list(map(dict, item.messages or ())) for item in items], torch.float32)


@pytest.fixture(scope="module")
def noise(folder: Path, items: list[Item], reference: Scores) -> float:
    """How far bfloat16 takes Transformers itself from float32."""
    rows = [list(map(dict, item.messages or ())) for item in items[:NOISE_COUNT]]
    return float(np.abs(transformers_scores(folder, rows, torch.bfloat16) - reference[:NOISE_COUNT]).max())


@pytest.fixture(scope="module")
def expected(folder: Path, items: list[Item]) -> list[Estimate]:
    """The torch engine in bfloat16."""
    return asyncio.run(torch_estimates(folder, items))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A vLLM server of each bundled model; both start at once."""
    logs = tmp_path_factory.mktemp("logs")
    started = {name: VllmServer(FOLDER / "models" / name, logs / f"{name}.log") for name in MODELS}
    with started[MODELS[0]], started[MODELS[1]]:
        yield {name: server.ready() for name, server in started.items()}


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`reward-service serve` with both bundled models in vLLM."""
    folder = tmp_path_factory.mktemp("serve")
    models = "".join(
        f'[[models]]\nname = "{name}"\nsource = "{FOLDER}/models/{name}"\nengine = "vllm"\ncompile = false\n'
        f'[[objectives]]\nname = "{name}"\naggregate = "weighted_sum"\n'
        f'[[objectives.terms]]\nmodel = "{name}"\ntransform = "identity"\n'
        for name in MODELS
    )
    file = folder / "service.toml"
    file.write_text(f'[server]\nport = 0\n[limits]\nrequest_timeout_s = 600\n[store]\nurl = "memory://"\n{models}')
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setitem(os.environ, name, value)
        with ServiceProcess(file) as service:
            yield service.url
            started = children(service.pid)
    assert started
    assert still_running(started) == []


def ties(scores: Scores) -> int:
    return sum(a == b for a, b in combinations(scores.tolist(), 2))


async def torch_estimates(folder: Path, items: list[Item]) -> list[Estimate]:
    async with serving(folder, dtype="bfloat16") as engine:
        found = await results(engine, items)
    assert all(isinstance(one, Estimate) for one in found)
    return [one for one in found if isinstance(one, Estimate)]


async def test_vllm_in_process_scores_what_transformers_scores(
    model: str,
    folder: Path,
    items: list[Item],
    expected: list[Estimate],
    reference: Scores,
    noise: float,
    in_process: str,
) -> None:
    body = {"objective": model, "conversations": [{"messages": item.messages} for item in items]}
    async with httpx.AsyncClient(timeout=600) as client:
        answer = (await client.post(f"{in_process}/v1/score", json=body)).raise_for_status().json()
    found = np.array([score["terms"][0]["raw"] for score in answer["scores"]])
    difference = np.abs(found - reference).max()
    print(f"{model}: in process {difference:.4g} from float32, bfloat16 noise {noise:.4g}, {ties(found)} ties")
    assert answer["models"][model]["engine"] == "vllm"
    assert difference <= NOISES * noise
    assert ties(found) <= ties(np.array([one.outputs[0] for one in expected]))
    assert answer["usage"]["tokens"] == sum(one.tokens for one in expected)


async def test_vllm_over_http_scores_what_transformers_scores(
    model: str,
    folder: Path,
    items: list[Item],
    expected: list[Estimate],
    reference: Scores,
    noise: float,
    servers: dict[str, str],
) -> None:
    options: dict[str, Any] = {"engine": "http", "protocol": "vllm", "urls": [servers[model]], "dtype": "bfloat16"}
    async with serving(folder, **options) as engine:
        estimates = [one for one in await results(engine, items) if isinstance(one, Estimate)]
    found = np.array([one.outputs[0] for one in estimates])
    difference = np.abs(found - reference).max()
    print(f"{model}: over HTTP {difference:.4g} from float32, bfloat16 noise {noise:.4g}, {ties(found)} ties")
    assert difference <= NOISES * noise
    assert ties(found) <= ties(np.array([one.outputs[0] for one in expected]))
    assert [one.tokens for one in estimates] == [one.tokens for one in expected]
    assert [one.response_tokens for one in estimates] == [one.response_tokens for one in expected]


async def test_one_conversation_that_vllm_cannot_read_stands_beside_its_neighbours(in_process: str) -> None:
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    long = {"messages": [{"role": "user", "content": "word " * 5000}, {"role": "assistant", "content": "Hello."}]}
    body = {"objective": MODELS[0], "conversations": [good, long, good]}
    async with httpx.AsyncClient(timeout=240) as client:
        first, bad, last = (await client.post(f"{in_process}/v1/score", json=body)).json()["scores"]
    assert first["reward"] == last["reward"]
    assert bad["error"]["code"] == "conversation_too_long"


async def test_jobs_are_scored_too(servers: dict[str, str]) -> None:
    item = Item(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}])
    options: dict[str, Any] = {"engine": "http", "protocol": "vllm", "urls": [servers[MODELS[0]]], "parity": "self"}
    async with serving(FOLDER / "models" / MODELS[0], **options) as engine:
        deadline = time.monotonic() + 60
        (job,) = await engine.score([item], priority=Priority.JOB, deadline=deadline)
        (rollout,) = await engine.score([item], priority=Priority.ROLLOUT, deadline=deadline)
    assert isinstance(job, Estimate)
    assert isinstance(rollout, Estimate)
    assert job.outputs == pytest.approx(rollout.outputs, abs=0.02)


def without_switches(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in ("use_activation", "activation", "softmax")}


def with_a_token_more(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "input": [[*ids[:1], *ids] for ids in body["input"]]}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without_switches, r"gives no raw scores .* lie in \[0, 1\]"),
        (with_a_token_more, r"it counted \d+ tokens where \d+ were sent"),
    ],
)
async def test_a_vllm_that_is_served_wrongly_is_refused(servers: dict[str, str], spoil: Any, told: str) -> None:
    name = MODELS[0]
    with listening(spoiling(servers[name], spoil)) as url, pytest.raises(NotReady, match=told):
        async with serving(FOLDER / "models" / name, engine="http", protocol="vllm", urls=[url], dtype="bfloat16"):
            pass


async def test_trailing_pad_tokens_are_not_pooled(servers: dict[str, str], in_process: str) -> None:
    """vLLM pools the literal last token: sent as they are, they change the score."""
    name = MODELS[0]
    folder = FOLDER / "models" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = "A conversation that is rendered already."
    padded = plain + str(tokenizer.pad_token) * 3
    items = [Item(text=plain), Item(text=padded)]
    options: dict[str, Any] = {"engine": "http", "protocol": "vllm", "urls": [servers[name]], "dtype": "bfloat16"}
    async with serving(folder, **options) as engine:
        over_http = [one for one in await results(engine, items) if isinstance(one, Estimate)]
    card = httpx.get(f"{servers[name]}/v1/models", timeout=240).json()["data"][0]
    ids = [tokenizer(text)["input_ids"] for text in (plain, padded)]
    body = {"model": card["id"], "input": ids, "use_activation": False}
    sent = httpx.post(f"{servers[name]}/classify", json=body, timeout=240).json()["data"]
    asked = {"objective": name, "conversations": [{"text": plain}, {"text": padded}]}
    here = httpx.post(f"{in_process}/v1/score", json=asked, timeout=240).json()["scores"]
    assert abs(sent[0]["probs"][0] - sent[1]["probs"][0]) > 0.1
    assert over_http[0].outputs == pytest.approx(over_http[1].outputs, abs=0.02)
    assert over_http[1].tokens == len(ids[1])
    assert here[0]["terms"][0]["raw"] == pytest.approx(here[1]["terms"][0]["raw"], abs=0.02)
