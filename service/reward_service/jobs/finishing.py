"""The end of a job: its output, errors, summary, report and manifest come to where they belong.

Each step may be done again: a run that is killed here is ended by the next one. The output itself comes last.
"""

from collections.abc import Mapping
from typing import Any

from reward_service.jobs.files import as_json, read_json, write_whole
from reward_service.jobs.report import report
from reward_service.jobs.summary import summarise
from reward_service.jobs.workspace import Workspace, beside


def finish(workspace: Workspace, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Put everything in its place and return the summary; the workspace holds all rows of its job."""
    workspace.close()
    output, work = workspace.output, workspace.rows
    if work.exists():
        _write_companions(workspace, manifest)
        if output.suffix == ".parquet":
            from reward_service.jobs.writing_parquet import write_parquet  # late: no other output needs pyarrow

            work = workspace.folder / "rows.parquet"
            terms = [term["name"] for term in (workspace.state.pin or {})["recipe"]["terms"]]
            write_parquet(workspace.rows, work, terms, manifest["keep"])
        workspace.publish(workspace.errors, beside(output, "errors.jsonl"))
        workspace.publish(work, output)
    workspace.clear()
    return dict(read_json(beside(output, "summary.json")))


def _write_companions(workspace: Workspace, manifest: Mapping[str, Any]) -> None:
    output, state = workspace.output, workspace.state
    summary = summarise(workspace.rows, state)
    documents = {
        "summary.json": as_json(summary),
        "report.html": report(output.name, summary, manifest, state.pin or {}).encode("utf-8", "backslashreplace"),
        "manifest.json": as_json({"job": manifest, "pin": state.pin}),
    }
    for suffix, content in documents.items():
        write_whole(beside(output, suffix), content, by_way_of=workspace.folder / "companion.tmp")
