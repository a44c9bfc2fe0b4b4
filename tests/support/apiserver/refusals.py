"""The ways the API says no: a ``Status`` of reason, code and message, worded as apimachinery words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON = "application/json"


@dataclass(frozen=True)
class Cause:
    """One field that is wrong; ``reason`` is FieldValueInvalid, FieldValueRequired and so on."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def document(self) -> dict[str, str]:
        """As it stands in ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class Refused(Exception):
    """A request that the server answers with a failure."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    def document(self) -> dict[str, Any]:
        """The ``Status`` object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return {**status, "details": self.details} if self.details else status


def _details(group: str, plural: str, name: str) -> dict[str, Any]:
    details = {"name": name, "kind": plural}
    return {**details, "group": group} if group else details


def qualified(group: str, plural: str) -> str:
    """``imagecaches.eci.alibabacloud.com``, or ``pods``."""
    return f"{plural}.{group}" if group else plural


def no_such_path() -> Refused:
    """The path names no resource that is served."""
    return Refused(404, "NotFound", "the server could not find the requested resource")


def not_found(group: str, plural: str, name: str) -> Refused:
    """There is no such object."""
    text = f'{qualified(group, plural)} "{name}" not found'
    return Refused(404, "NotFound", text, details=_details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> Refused:
    """Create met an object of that name."""
    text = f'{qualified(group, plural)} "{name}" already exists'
    return Refused(409, "AlreadyExists", text, details=_details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> Refused:
    """The object is not the one the writer had seen."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    text = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Refused(409, "Conflict", text, details=_details(group, plural, name))


def apply_conflict(causes: Sequence[Cause]) -> Refused:
    """Server-side apply met fields that others own."""
    word = "conflict" if len(causes) == 1 else "conflicts"
    text = f"Apply failed with {len(causes)} {word}: " + "; ".join(
        f"{cause.message}: {cause.field}" for cause in causes
    )
    return Refused(409, "Conflict", text, details={"causes": [cause.document() for cause in causes]})


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> Refused:
    """The object is well formed and not allowed."""
    shown = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
    listed = f"[{shown.replace('; ', ', ')}]" if len(causes) > 1 else shown
    details = {**_details(group, kind, name), "causes": [cause.document() for cause in causes]}
    text = f'{qualified(group, kind)} "{name}" is invalid: {listed}'
    return Refused(422, "Invalid", text, details=details)


def bad_request(message: str) -> Refused:
    """The request itself makes no sense."""
    return Refused(400, "BadRequest", message)


def forbidden(message: str) -> Refused:
    """Authentic, and not allowed."""
    return Refused(403, "Forbidden", message)


def unauthorized() -> Refused:
    """Nobody we know."""
    return Refused(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> Refused:
    """A resourceVersion or continue token from before the last compaction."""
    return Refused(410, "Expired", message)


def too_large_version(asked: int, now: int) -> Refused:
    """A resourceVersion from the future."""
    text = f"Too large resource version: {asked}, current: {now}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Refused(504, "Timeout", text, details={"causes": [cause], "retryAfterSeconds": 1})


def too_large_body(most: int) -> Refused:
    """More than the server reads."""
    return Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {most}")


def unsupported_media_type(accepted: Sequence[str]) -> Refused:
    """A body, or a kind of patch, that this resource does not take."""
    text = "the body of the request was in an unknown format - accepted media types include: "
    return Refused(415, "UnsupportedMediaType", text + ", ".join(accepted))


def not_acceptable(accepted: Sequence[str]) -> Refused:
    """An Accept header that names nothing we speak."""
    text = f"only the following media types are accepted: {', '.join(accepted)}"
    return Refused(406, "NotAcceptable", text)


def method_not_allowed() -> Refused:
    """The resource has no such verb."""
    return Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def too_many_requests(retry_after: int) -> Refused:
    """Later, please."""
    text = "the server has received too many requests and has asked us to try again later"
    return Refused(
        429, "TooManyRequests", text,
        details={"retryAfterSeconds": retry_after}, headers={"Retry-After": str(retry_after)},
    )  # fmt: skip


def broken(message: str = "an error on the server has prevented the request from succeeding") -> Refused:
    """The server's own fault."""
    return Refused(500, "InternalError", f"Internal error occurred: {message}")
