"""What the metrics are told of models on other servers."""

from reward_service.config import ClassifierConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item
from tests.engine.fakes import Seen
from tests.engine.serving import results
from tests.hosted.conftest import Build
from tests.hosted.serving import Host, listening, vllm_app

ITEMS = [Item(text=f"This is text number {n}, " + "with words " * (n % 7)) for n in range(64)]


async def test_each_call_to_a_server_that_is_answered_is_a_batch(folder: Build) -> None:
    host, seen = Host(folder("bos")), Seen()
    devices = Devices(max_queued_tokens=100_000, observer=seen)
    with listening(vllm_app(host)) as url:
        config = ClassifierConfig(
            name="m",
            source=str(host.folder),
            engine="http",
            protocol="vllm",
            urls=[url],
            parity="self",
            dtype="float32",
        )
        engine = create(config, devices)
        await engine.start()
        seen.batches.clear()
        host.calls.clear()
        found = await results(engine, ITEMS)
        await engine.close()
    await devices.close()
    assert [model for model, _ in seen.batches] == ["m"] * len(host.calls)
    assert [batch["items"] for _, batch in seen.batches].count(0) == 0
    assert sum(batch["items"] for _, batch in seen.batches) == len(ITEMS)
    tokens = sum(one.tokens for one in found if isinstance(one, Estimate))
    assert sum(batch["tokens"] for _, batch in seen.batches) == tokens
    assert all(batch["seconds"] > 0 for _, batch in seen.batches)
