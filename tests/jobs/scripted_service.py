"""python -m tests.jobs.scripted_service: a service that reads each score in the response, as fast as it can."""

import tomllib

from reward_service.catalog import Catalog, Model
from reward_service.cli.serving import announce, bind, listen, run
from reward_service.config import parse_config
from reward_service.service import assemble
from reward_service.stores import open_store
from reward_service.telemetry import Metrics
from tests.jobs.files import ONE_TERM
from tests.scripted import ScriptedEngine


class ForgetfulEngine(ScriptedEngine):
    """Keeps no record of what it was asked, however much that is."""

    async def score(self, items, **how):  # type: ignore[no-untyped-def]
        """The numbers that stand in the items."""
        results = await super().score(items, **how)
        for record in (self.calls, self.admitted, self.priorities):
            record.clear()
        return results


async def serve() -> None:
    config = parse_config(tomllib.loads(ONE_TERM), {})
    models = {model.name: Model(model, ForgetfulEngine(model.name)) for model in config.models}
    catalog = Catalog(models, lambda model: ForgetfulEngine(model.name))
    with bind("127.0.0.1", 0) as bound:
        await listen(assemble(config, catalog, open_store("memory://"), Metrics()), bound, announce)


if __name__ == "__main__":
    run(serve())
