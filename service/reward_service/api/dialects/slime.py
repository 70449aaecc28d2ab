"""slime and miles: `--rm-type remote_rm --rm-url URL`, one sample per request, the whole answer is its reward."""

from typing import Literal

from pydantic import Field

from reward_service.api.dialects.asked import Asked, Parameters
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.dialects.numbers import rewards, term_numbers
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.texts import of_parts
from reward_service.schemas import Conversation, Prompt, ScoreAnswer
from reward_service.schemas.base import Json, Text

router = dialect_router()


class SlimeSample(Body):
    """What slime and miles tell of a sample; `label` is not used."""

    prompt: Prompt
    response: Text
    label: Json = None


class SlimeParameters(Parameters):
    """Query parameters of the slime dialect."""

    answer: Literal["number", "dict"] = Field(
        "number", description="dict: `reward` and every term's numbers, for --reward-key reward"
    )


class Slime(Dialect[SlimeSample, SlimeParameters]):
    """The reward of one sample, as a bare number or, with `?answer=dict`, beside its terms."""

    body, parameters = SlimeSample, SlimeParameters
    answer = float | dict[str, float]
    input = "reparse"
    patience_s = 110.0

    def parse(self, body: SlimeSample, asked: Asked[SlimeParameters]) -> list[Conversation]:
        """The sample; `response` may end in the policy's end-of-turn."""
        return [of_parts(body.prompt, body.response, asked)]

    def render(self, body: SlimeSample, asked: Asked[SlimeParameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """A number, or a flat object of numbers."""
        reward = rewards(answer)[0]
        if asked.parameters.answer == "number":
            return reward
        return {"reward": reward, **term_numbers(answer.scores[0])}


add_route(router, "/slime/{objective}", Slime(), "slime and miles: the reward of one sample")
