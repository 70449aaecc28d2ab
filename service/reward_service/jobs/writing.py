"""Scored rows to the output, the others to the error file, each in its turn."""

import time
from collections import Counter
from collections.abc import Sequence

from reward_service.errors import JobStopped
from reward_service.jobs.files import writing
from reward_service.jobs.plan import JobPlan
from reward_service.jobs.reading import Problem
from reward_service.jobs.records import error_line, problem_of, scored_line
from reward_service.jobs.rows import Row
from reward_service.jobs.scoring import Scored
from reward_service.jobs.workspace import Workspace
from reward_service.schemas import ConversationScore

COMMIT_S = 0.25
HOPELESS = 1000
"""When so many rows at the beginning all fail, it is the columns or the configuration that are wrong."""


class Writer:
    """Appends chunks to a workspace, and commits a few times a second."""

    def __init__(self, plan: JobPlan, workspace: Workspace) -> None:
        self._most_errors = plan.max_errors
        self._workspace = workspace
        self._began = self._committed = time.monotonic()
        self._seconds_before = workspace.state.seconds

    def write(self, chunk: Sequence[Row], scored: Scored) -> None:
        """Write the next chunk; JobStopped when too many rows have failed."""
        with writing(self._workspace.folder):
            problems = [self._problem(row, score) for row, score in zip(chunk, scored.scores, strict=True)]
        columns = list(zip(chunk, scored.scores, problems, strict=True))
        good = [scored_line(row, score) for row, score, problem in columns if score is not None and problem is None]
        bad = [error_line(row, problem) for row, _, problem in columns if problem is not None]
        self._workspace.append(good, bad)
        self._note(chunk[-1], len(good), Counter(problem.code for problem in problems if problem), scored.tokens)
        if time.monotonic() - self._committed >= COMMIT_S:
            self._workspace.commit()
            self._committed = time.monotonic()
        self._stop_if_hopeless()

    def _problem(self, row: Row, score: ConversationScore | None) -> Problem | None:
        earlier = self._workspace.identities.earlier(row)
        if earlier is not None:
            return Problem("duplicate_id", f"{earlier} has the same id {row.id!r}; each id is scored once")
        return problem_of(row, score)

    def _note(self, last: Row, scored: int, failed: Counter[str], tokens: int) -> None:
        state = self._workspace.state
        state.scored += scored
        state.failed = dict(Counter(state.failed) + failed)
        state.tokens += tokens
        state.end = last.end
        state.seconds = self._seconds_before + time.monotonic() - self._began

    def _stop_if_hopeless(self) -> None:
        state, most = self._workspace.state, self._most_errors
        if most is not None and state.errors > most:
            raise JobStopped(
                f"{state.errors} rows have failed, more than --max-errors {most}; see {self._workspace.errors}"
            )
        if most is None and not state.scored and state.errors >= HOPELESS:
            raise JobStopped(
                f"none of the first {state.errors} rows could be scored; see {self._workspace.errors}. "
                "Are the columns named right (--field)? With --max-errors N the job goes on all the same"
            )
