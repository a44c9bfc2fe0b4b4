"""AdmissionReview (admission.k8s.io/v1): what the API server asks, and our answer. Pure.

The bytes are hostile: whoever reaches the port may send them. What is no review is InvalidInput.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from imagecached.errors import InvalidInput

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
MAX_BYTES: Final = 3 << 20
"""An object may have 1.5 MiB in etcd, and a review holds up to two."""
_MAX_WARNING: Final = 256
_MAX_WARNINGS: Final = 10

_Name = Annotated[str, msgspec.Meta(max_length=1024)]


class _Kind(msgspec.Struct):
    group: _Name = ""
    version: _Name = ""
    kind: _Name = ""


class _Request(msgspec.Struct, rename="camel"):
    uid: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    kind: _Kind
    operation: _Name
    namespace: _Name = ""
    name: _Name = ""
    sub_resource: _Name = ""
    dry_run: bool | None = None
    object: dict[str, Any] | None = None


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    request: _Request


@dataclass(frozen=True, slots=True)
class Request:
    """One question. ``object`` is the pod as it is to be; it may have neither name nor uid yet."""

    uid: str
    kind: str
    operation: str
    namespace: str
    object: Mapping[str, Any] = field(default_factory=dict, repr=False)
    dry_run: bool = False

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The object's metadata, whatever was sent as such."""
        found = self.object.get("metadata")
        return found if isinstance(found, Mapping) else {}

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The object's annotations, whatever was sent as such."""
        found = self.metadata.get("annotations")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of the object. ``patch``: JSON Patch (RFC 6902). ``audit``: for the cluster's audit log.

    Refused: ``code`` is the HTTP status that the caller sees, ``reason`` one word, ``message`` a sentence.
    """

    allowed: bool = True
    patch: Sequence[Mapping[str, Any]] = ()
    warnings: tuple[str, ...] = ()
    audit: Mapping[str, str] = field(default_factory=dict)
    code: int = 403
    reason: str = ""
    message: str = ""


def parse_review(body: bytes) -> Request:
    """The question in ``body``. InvalidInput: it is no AdmissionReview, or of another version."""
    try:
        review = msgspec.json.decode(body, type=_Review)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not an {KIND}: {error}") from error
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        found = f"{review.kind[:60]!r} of {review.api_version[:60]!r}"
        raise InvalidInput(f"must be an {KIND} of {API_VERSION}, not {found}")
    asked = review.request
    core = asked.kind.kind if not asked.kind.group and not asked.sub_resource else ""
    return Request(
        asked.uid, core, asked.operation, asked.namespace, asked.object or {}, dry_run=bool(asked.dry_run)
    )


def answer_document(uid: str, answer: Answer) -> bytes:
    """The review that answers the question with this uid."""
    response: dict[str, Any] = {"uid": uid, "allowed": answer.allowed}
    if answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(answer.patch)).decode()
    if answer.warnings:
        response["warnings"] = [_short(warning) for warning in answer.warnings[:_MAX_WARNINGS]]
    if answer.audit:
        response["auditAnnotations"] = dict(answer.audit)
    if not answer.allowed:
        response["status"] = {
            "status": "Failure",
            "code": answer.code,
            "reason": answer.reason,
            "message": answer.message,
        }
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response})


def _short(warning: str) -> str:
    """The API server cuts longer ones, in the middle of a word."""
    return warning if len(warning) <= _MAX_WARNING else f"{warning[: _MAX_WARNING - 1]}…"
