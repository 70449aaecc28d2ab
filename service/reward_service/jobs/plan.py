"""What a job shall do: which rows, which columns, where to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reward_service.errors import JobStopped
from reward_service.problems import nearest
from reward_service.schemas import Conversation

FIELDS = tuple(name for name in Conversation.model_fields if name != "group_size")
"""A job sends the rows of a group together where it can, and promises no whole groups."""
FORMS = (("messages",), ("prompt", "response"), ("text",))
RESULTS = ("id", "reward", "terms")
OUTPUT_SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job: `fields` names the column of a conversation's field, `keep` the columns that go along to the output.

    `batch` conversations go in a request and `concurrency` requests at once; `max_errors` rows may fail before the job
    stops (None: any number, once one of the first rows could be scored). A job that is told to stop waits `grace_s`
    seconds for a request under way.
    """

    inputs: Sequence[str]
    output: Path
    objective: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    keep: Sequence[str] = ()
    batch: int = 256
    concurrency: int = 4
    max_errors: int | None = None
    grace_s: float = 20.0
    allow_baseline_changes: bool = False
    restart: bool = False

    def check(self) -> None:
        """JobStopped when the job could not be done as it is described."""
        if "://" in str(self.output) or ":/" in str(self.output):
            raise JobStopped(f"-o {self.output}: the output is a local file; copy it to where it belongs afterwards")
        if self.output.suffix not in OUTPUT_SUFFIXES:
            raise JobStopped(f"-o {self.output}: the name ends in none of {', '.join(OUTPUT_SUFFIXES)}")
        if not self.output.parent.is_dir():
            raise JobStopped(f"-o {self.output}: there is no folder {self.output.parent}")
        for name in self.keep:
            if name in RESULTS:
                raise JobStopped(f"--keep {name}: the output has a column {name!r} of its own")
        self.columns()

    def columns(self) -> dict[str, str]:
        """The column of each field that rows are read for.

        Fields of one form (such as `messages`) that are named leave the columns of the other forms out.
        """
        for name in self.fields:
            if name not in FIELDS:
                raise JobStopped(f"--field {name}: a conversation has no field {name!r}{nearest(name, FIELDS)}")
        named = [form for form in FORMS if any(name in self.fields for name in form)]
        if len(named) > 1:
            first, second = (next(name for name in form if name in self.fields) for form in named[:2])
            raise JobStopped(f"--field: {first!r} and {second!r} belong to two forms of a conversation; name one form")
        left_out = {name for form in FORMS if named and form not in named for name in form}
        return {name: self.fields.get(name, name) for name in FIELDS if name not in left_out}
