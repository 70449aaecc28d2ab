"""OpenRLHF: `--reward.remote_url URL` (older: `--remote_rm_url`), read by every generation of its clients."""

from typing import Self

from pydantic import model_validator

from reward_service.api.dialects.asked import Asked, Parameters
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.dialects.numbers import probabilities, rewards, term_lists
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.texts import each, of_query, of_text
from reward_service.schemas import Conversation, ScoreAnswer
from reward_service.schemas.base import Answer, Items, Json, Text

router = dialect_router()


class OpenRLHFBatch(Body):
    """Prompts and responses in one, special tokens kept; older clients send no `prompts` or `labels`."""

    query: Items[Text]
    prompts: Items[Text] | None = None
    labels: Json = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.prompts is not None and len(self.prompts) != len(self.query):
            raise ValueError(f"{len(self.query)} in query and {len(self.prompts)} in prompts; give one prompt for each")
        return self


class OpenRLHFRewards(Answer):
    """Lists in the order of `query`: what to train on, what to filter by, and each term's numbers for the logs."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class OpenRLHF(Dialect[OpenRLHFBatch, Parameters]):
    """The rewards of a batch. `scores` are in [0, 1] where the reward is a probability or its logarithm."""

    body, parameters = OpenRLHFBatch, Parameters
    answer = OpenRLHFRewards
    input = "reparse"
    item = "query"
    patience_s = 170.0

    def parse(self, body: OpenRLHFBatch, asked: Asked[Parameters]) -> list[Conversation]:
        """Each query as a conversation, with the help of its prompt where there is one."""
        if body.prompts is None:
            return each("query", body.query, lambda query: of_text(query, asked))
        pairs = list(zip(body.query, body.prompts, strict=True))
        return each("query", pairs, lambda pair: of_query(*pair, asked))

    def render(self, body: OpenRLHFBatch, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """Rewards, the same as probabilities, and the terms."""
        trained_on = rewards(answer)
        scores = probabilities(answer.recipe, trained_on)
        return {
            "rewards": trained_on,
            "scores": trained_on if scores is None else scores,
            "extra_logs": term_lists(answer),
        }


add_route(router, "/openrlhf/{objective}/get_reward", OpenRLHF(), "OpenRLHF: the rewards of a batch")
