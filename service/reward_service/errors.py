"""What can go wrong, as one tree: each error carries its HTTP status, its code and one useful sentence.

ServiceError
  InvalidRequest            422  a field of the request is not valid
    PromptRequired          422  a term needs a prompt and the conversation has none
    BaselineMissing         422  a prompt has no (or too few) references
    BaselineUnusable        422  the references do not allow the term's statistic
  RenderingFailed           422  the model's template refuses the conversation
  ReparseFailed             422  the messages of a rendered text cannot be told
  ConversationTooLong       422  more tokens than the model reads
  UnfinishedResponse        422  cut at the length limit, and the model's config refuses such responses
  SpecialTokenInContent     422  a content spells a special token of the model, and cannot be read as text
  MalformedRequest          400  the request is not HTTP, or its body is not JSON
  Unauthorized              401  no API key, or an unknown one
  Forbidden                 403  the API key does not open the route
  RouteNotFound             404
  ModelNotFound             404
  ObjectiveNotFound         404
  BaselineNotFound          404
  RequestTimeout            408  the caller took too long to send its request
  ExpectationFailed         409  the server is not what `expect` names
  PolicyRevisionConflict    409  the policy name already stands for another revision
  IdempotencyConflict       409  the key was used for another content
  PolicyFrozen              409
  ReloadUnderway            409  the model is being reloaded already
  ReloadFailed              409  the model as it is now cannot be served; the one that was loaded still is
  TooLarge                  413  larger than the service ever takes
  UnsupportedEncoding       415  the body is compressed
  HeadersTooLarge           431
  Overloaded                429  no room now; `retry_after_s` says when
  ClientGone                499  the caller hung up
  NotReady                  503
  StoreUnavailable          503  the store failed: that is not "missing"
  EngineFailed              503  the device or the model failed
  NotFinite                 503  the model gave NaN or an infinity
  DeadlineExceeded          504
ConfigError                 a configuration file with every problem it has
JobStopped                  a file job that cannot begin or go on
"""

from collections.abc import Sequence
from copy import copy
from typing import ClassVar, Self


def printable(text: str) -> str:
    """The text, with what is not valid Unicode (a lone surrogate of a caller's field) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


class ServiceError(Exception):
    """An error with an HTTP status, a stable code and a sentence that helps; never a number."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = printable(detail)

    def __str__(self) -> str:
        return self.detail

    def located(self, where: str) -> Self:
        """The same error, its sentence naming where in the request it arose."""
        located = copy(self)
        located.detail = f"{where}: {self.detail}"
        return located


class InvalidRequest(ServiceError):
    """A field of the request is not valid."""

    status, code, title = 422, "invalid_request", "Invalid request"

    def __init__(self, detail: str, problems: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.problems = [printable(problem) for problem in problems]


class PromptRequired(InvalidRequest):
    """A term needs the prompt and the conversation has none (`text`)."""

    code, title = "prompt_required", "Prompt required"


class BaselineMissing(InvalidRequest):
    """A prompt has no references, or too few, and the term's `on_missing` is `error`."""

    code, title = "baseline_missing", "Baseline missing"


class BaselineUnusable(InvalidRequest):
    """The references of a prompt do not allow the statistic of the term."""

    code, title = "baseline_unusable", "Baseline unusable"


class RenderingFailed(ServiceError):
    """The model's chat template or tokenizer refuses the conversation."""

    status, code, title = 422, "rendering_failed", "Rendering failed"


class ReparseFailed(ServiceError):
    """The text is not one that a known chat template wrote, or may be read in two ways."""

    status, code, title = 422, "reparse_failed", "Reparsing failed"


class ConversationTooLong(ServiceError):
    """The rendered conversation has more tokens than the model reads."""

    status, code, title = 422, "conversation_too_long", "Conversation too long"


class UnfinishedResponse(ServiceError):
    """The response was cut at the length limit and the model's config refuses such responses."""

    status, code, title = 422, "unfinished_response", "Unfinished response"


class SpecialTokenInContent(ServiceError):
    """A content spells a special token of the model, which its config refuses, or which cannot be read as text."""

    status, code, title = 422, "special_token_in_content", "Special token in content"


class MalformedRequest(ServiceError):
    """The request, or its body, cannot be read at all."""

    status, code, title = 400, "malformed_request", "Malformed request"


class Unauthorized(ServiceError):
    """No API key, or one that is not configured."""

    status, code, title = 401, "unauthorized", "Unauthorized"


class Forbidden(ServiceError):
    """The API key does not have the scope that the route needs."""

    status, code, title = 403, "forbidden", "Forbidden"


class RouteNotFound(ServiceError):
    """Nothing is served at this path."""

    status, code, title = 404, "not_found", "Not Found"


class ModelNotFound(ServiceError):
    """No model of that name is loaded."""

    status, code, title = 404, "model_not_found", "Model not found"


class ObjectiveNotFound(ServiceError):
    """No objective of that name is configured."""

    status, code, title = 404, "objective_not_found", "Objective not found"


class BaselineNotFound(ServiceError):
    """The prompt (or policy) has no stored references."""

    status, code, title = 404, "baseline_not_found", "Baseline not found"


class RequestTimeout(ServiceError):
    """The caller took too long to send its request."""

    status, code, title = 408, "request_timeout", "Request timeout"


class ExpectationFailed(ServiceError):
    """The server's objective, models or baselines are not those that the request expects."""

    status, code, title = 409, "expectation_failed", "Expectation failed"


class PolicyRevisionConflict(ServiceError):
    """The policy name already stands for another revision of the policy."""

    status, code, title = 409, "policy_revision_conflict", "Policy revision conflict"


class IdempotencyConflict(ServiceError):
    """The idempotency key was used for another content."""

    status, code, title = 409, "idempotency_conflict", "Idempotency conflict"


class PolicyFrozen(ServiceError):
    """The policy's baselines are frozen."""

    status, code, title = 409, "policy_frozen", "Policy frozen"


class ReloadUnderway(ServiceError):
    """The model is being reloaded already."""

    status, code, title = 409, "reload_underway", "Reload under way"


class ReloadFailed(ServiceError):
    """The model as its files are now cannot be served; the one that was loaded still is."""

    status, code, title = 409, "reload_failed", "Reload failed"


class TooLarge(ServiceError):
    """Larger than the service ever takes: a retry cannot help."""

    status, code, title = 413, "too_large", "Too large"


class UnsupportedEncoding(ServiceError):
    """The body is compressed, or encoded in another way that the service does not undo."""

    status, code, title = 415, "unsupported_encoding", "Unsupported encoding"


class HeadersTooLarge(ServiceError):
    """Path and headers of the request are larger than the service takes."""

    status, code, title = 431, "headers_too_large", "Headers too large"


class Overloaded(ServiceError):
    """No room now."""

    status, code, title = 429, "overloaded", "Overloaded"

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.args = (detail, retry_after_s)
        self.retry_after_s = retry_after_s


class ClientGone(ServiceError):
    """The caller hung up; nobody reads this answer."""

    status, code, title = 499, "client_gone", "Client closed the connection"


class NotReady(ServiceError):
    """The service cannot score yet, or no longer."""

    status, code, title = 503, "not_ready", "Not ready"


class StoreUnavailable(ServiceError):
    """The store failed. That is not the same as a missing baseline."""

    status, code, title = 503, "store_unavailable", "Store unavailable"


class EngineFailed(ServiceError):
    """The device or the model failed while it computed the item."""

    status, code, title = 503, "engine_failed", "Engine failed"


class NotFinite(ServiceError):
    """The model gave NaN or an infinity for the item."""

    status, code, title = 503, "not_finite", "Score not finite"


class DeadlineExceeded(ServiceError):
    """The time that the request allowed is over."""

    status, code, title = 504, "deadline_exceeded", "Deadline exceeded"


class ConfigError(Exception):
    """A configuration that cannot be used, with every problem found in it."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join([f"{source}: {len(problems)} problem(s)", *(f"  - {p}" for p in problems)]))
        self.source = source
        self.problems = list(problems)


class JobStopped(Exception):
    """A file job that cannot begin or go on: why, and what to do."""
