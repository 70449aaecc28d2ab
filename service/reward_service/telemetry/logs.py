"""Log lines as text or JSON on standard error, each with the id of its request; never what callers send."""

import functools
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from pydantic_core import to_json

from reward_service.telemetry.context import request_fields

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

ACCESS = "reward_service.access"
TALKATIVE = ("httpx", "httpcore", "urllib3", "asyncio", "filelock", "transformers", "torch", "opentelemetry")
"""Libraries whose lines below a warning are of no use to who runs the service."""
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def configure_logs(log_format: LogFormat, log_level: LogLevel, stream: TextIO | None = None) -> None:
    """Send every log line of the process, the libraries' too, to one stream (standard error) in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(FORMATTERS[log_format]())
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line says any of it
    for name in UVICORN:
        _as_created(logging.getLogger(name))
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says beside its message: the request that it belongs to, and what was given as `extra`.

    A line with many fields gives them as one, `extra={"fields": {...}}`, which saves the search for them.
    """
    given = vars(record).get("fields")
    if given is None:
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: value for name, value in {**request_fields(), **given}.items() if value is not None}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, then the fields; an exception is one field.

    A number that JSON does not know (NaN, infinity) is null.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if exception := _exception(self, record):
            line["exception"] = exception
        try:
            return to_json(line, fallback=str, inf_nan_mode="null").decode()
        except ValueError:  # a text that is not valid Unicode
            return json.dumps(json.loads(json.dumps(line, default=str), parse_constant=lambda _: None))


class TextFormatter(logging.Formatter):
    """For a person: time, level, logger, message, then the fields as name=value; an exception on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        parts = [_utc(record), f"{record.levelname:<7}", record.name, record.getMessage(), *_pairs(fields_of(record))]
        return "\n".join(filter(None, [" ".join(parts), _exception(self, record)]))


FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def _as_created(logger: logging.Logger) -> None:
    """Undo what a uvicorn that ran before in this process set: a level, a handler and an end of propagation."""
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)


def _utc(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _pairs(fields: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}={json.dumps(value, default=str) if isinstance(value, dict | list) else value}"
        for name, value in fields.items()
    ]


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    trace = formatter.formatException(record.exc_info) if record.exc_info else ""
    return trace or (formatter.formatStack(record.stack_info) if record.stack_info else "")
