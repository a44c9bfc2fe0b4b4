"""One ImageCache document → the checked value. Strict in what it accepts, complete in what it says is wrong.

Unknown fields are warned about, not refused: the same manifests go to clusters with other versions. The API
server's schema checks most of this too, but objects may have been stored before it did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import annotations as keys
from imagecached.imagecache.findings import Findings, named, shown
from imagecached.imagecache.ids import uid_of_name
from imagecached.imagecache.model import (
    API_VERSION,
    DEFAULT_SIZE_GIB,
    KIND,
    MAX_IMAGES,
    MAX_RETENTION_DAYS,
    MAX_SIZE_GIB,
    MIN_SIZE_GIB,
    ImageCache,
    SecretName,
)
from imagecached.oci.reference import Reference

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL)
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME: Final = 253
_MAX_SECRETS: Final = 20
_MAX_TEXTS: Final = 512
_MAX_TEXT_BYTES: Final = 256 << 10

_TOP: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SPEC: Final = frozenset({"images", "imagePullSecrets", "imageCacheSize", "retentionDays"})
_METADATA: Final = frozenset(
    "name generateName annotations labels uid generation creationTimestamp resourceVersion managedFields "
    "selfLink ownerReferences finalizers deletionTimestamp deletionGracePeriodSeconds".split()
)


def read_cache(document: Any, findings: Findings, *, from_file: bool = False) -> ImageCache | None:
    """The cache that ``document`` declares, or None with the reasons in ``findings``.

    ``from_file``: nobody gave it a uid, a generation or a time yet; what the text says of them is ignored.
    """
    before, unheeded = len(findings.problems), len(findings.warnings)
    if not isinstance(document, Mapping):
        findings.refuse("", f"must be a mapping, not {shown(document)}")
        return None
    _check_kind(document, findings)
    if len(findings.problems) > before:  # the fields of something else are not ours to judge
        return None
    metadata, spec = _mapping(document, "metadata", findings), _mapping(document, "spec", findings)
    if metadata is None or spec is None:
        return None
    _warn_of_unknown(document, _TOP, "", findings)
    _warn_of_unknown(metadata, _METADATA, "metadata", findings)
    _warn_of_unknown(spec, _SPEC, "spec", findings)
    cache = _cache(metadata, spec, findings, from_file=from_file)
    if len(findings.problems) > before:
        return None
    ignored = (f"{warning.where} {warning.message}" for warning in findings.warnings[unheeded:])
    return replace(cache, ignored=tuple(ignored))


def parse_object(document: Mapping[str, Any]) -> ImageCache:
    """An object of the API server. InvalidInput names the first wrong field, and how many more there are."""
    findings = Findings("")
    cache = read_cache(document, findings)
    if cache is not None:
        return cache
    more = len(findings.problems) - 1
    raise InvalidInput(f"{findings.problems[0]}{f' (and {more} more)' if more else ''}")


def _check_kind(document: Mapping[str, Any], findings: Findings) -> None:
    for field, allowed in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) != allowed:
            findings.refuse(field, f"must be {allowed}, not {shown(document.get(field))}")


def _mapping(document: Mapping[str, Any], name: str, findings: Findings) -> Mapping[str, Any] | None:
    value = document.get(name)
    if isinstance(value, Mapping):
        return value
    findings.refuse(name, "is missing" if value is None else f"must be a mapping, not {shown(value)}")
    return None


def _warn_of_unknown(
    fields: Mapping[Any, Any], known: frozenset[str], where: str, findings: Findings
) -> None:
    for name in fields:
        if name not in known:
            is_namespace = where == "metadata" and name == "namespace"
            what = "an ImageCache belongs to no namespace" if is_namespace else "is no field of an ImageCache"
            findings.warn(_path(where, named(name)), f"{what}; it is ignored")


def _cache(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], findings: Findings, *, from_file: bool
) -> ImageCache:
    name = _name(metadata.get("name"), findings)
    annotations = _texts(metadata, "annotations", findings)
    labels = _texts(metadata, "labels", findings)
    return ImageCache(
        name=name,
        uid=uid_of_name(name) if from_file else _uid(metadata, findings),
        generation=0 if from_file else _generation(metadata, findings),
        created=0.0 if from_file else _created(metadata, findings),
        annotations=annotations,
        labels=labels,
        images=_images(spec.get("images"), findings),
        pull_secrets=_secrets(spec.get("imagePullSecrets"), findings),
        size_gib=_size(spec, annotations, findings),
        retention_days=_retention(spec, annotations, findings),
        options=keys.read_options(annotations, labels, "metadata.annotations", findings),
    )


def _name(value: Any, findings: Findings) -> str:
    if isinstance(value, str) and len(value) <= _MAX_NAME and _NAME.fullmatch(value):
        return value
    allowed = f"must be at most {_MAX_NAME} of a-z, 0-9, '-' and '.', with a letter or digit first and last"
    findings.refuse("metadata.name", "is missing" if value is None else f"{allowed}, not {shown(value)}")
    return ""


def _uid(metadata: Mapping[str, Any], findings: Findings) -> str:
    uid = metadata.get("uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= _MAX_NAME:
        findings.refuse("metadata.uid", f"must be the API server's, not {shown(uid)}")
        return ""
    return uid


def _generation(metadata: Mapping[str, Any], findings: Findings) -> int:
    return _number(metadata, "generation", 0, (1 << 63) - 1, "metadata", findings) or 0


def _created(metadata: Mapping[str, Any], findings: Findings) -> float:
    text = metadata.get("creationTimestamp")
    try:
        if not isinstance(text, str):
            raise ValueError("no text")  # noqa: TRY004  one refusal for all that is no time
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return moment.timestamp()
    except (ValueError, OverflowError):
        findings.refuse("metadata.creationTimestamp", f"must be a time as in RFC 3339, not {shown(text)}")
        return 0.0


def _texts(metadata: Mapping[str, Any], field: str, findings: Findings) -> dict[str, str]:
    """Labels or annotations: text to text."""
    value = metadata.get(field)
    where = f"metadata.{field}"
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        findings.refuse(where, f"must be a mapping of text to text, not {shown(value)}")
        return {}
    texts = {key: text for key, text in value.items() if _is_text(key, text, where, findings)}
    if len(value) > _MAX_TEXTS or sum(len(key) + len(text) for key, text in texts.items()) > _MAX_TEXT_BYTES:
        findings.refuse(where, f"must be at most {_MAX_TEXTS} of at most {_MAX_TEXT_BYTES} bytes together")
        return {}
    return texts


def _is_text(key: Any, value: Any, where: str, findings: Findings) -> bool:
    if isinstance(key, str) and isinstance(value, str):
        return True
    quoted = (
        f', write "{str(value).lower()}"' if isinstance(value, (bool, int)) and len(shown(value)) < 20 else ""
    )
    findings.refuse(f"{where}[{named(key)}]", f"must be text in quotes{quoted}, not {shown(value)}")
    return False


def _images(value: Any, findings: Findings) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_IMAGES:
        what = "is missing" if value is None else f"not {shown(value)}"
        findings.refuse("spec.images", f"must be a list of 1 to {MAX_IMAGES} images, {what}")
        return ()
    seen: dict[str, str] = {}
    for index, image in enumerate(value):
        _image(image, f"spec.images[{index}]", seen, findings)
    return tuple(seen.values())


def _image(image: Any, where: str, seen: dict[str, str], findings: Findings) -> None:
    if not isinstance(image, str):
        findings.refuse(where, f"must be the text of an image reference, not {shown(image)}")
        return
    try:
        canonical = str(Reference.parse(image))
    except InvalidInput as error:
        findings.refuse(where, f"must be an image reference such as registry/name:tag: {error}")
        return
    if canonical in seen:
        findings.refuse(where, f"{shown(image)} is the same image as {shown(seen[canonical])}")
    seen.setdefault(canonical, image)


def _secrets(value: Any, findings: Findings) -> tuple[SecretName, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_SECRETS:
        findings.refuse(
            "spec.imagePullSecrets", f"must be a list of at most {_MAX_SECRETS}, not {shown(value)}"
        )
        return ()
    found = [_secret(item, f"spec.imagePullSecrets[{index}]", findings) for index, item in enumerate(value)]
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _secret(item: Any, where: str, findings: Findings) -> SecretName | None:
    namespace, colon, name = item.partition(":") if isinstance(item, str) else ("", "", "")
    if not colon or not _NAMESPACE.fullmatch(namespace) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        findings.refuse(where, f'must be text of the form "namespace:name", not {shown(item)}')
        return None
    return SecretName(namespace, name)


def _size(spec: Mapping[str, Any], annotations: Mapping[str, str], findings: Findings) -> int:
    size = _number(spec, "imageCacheSize", MIN_SIZE_GIB, MAX_SIZE_GIB, "spec", findings)
    asked = _asked(annotations, keys.SIZE, keys.size_gib, findings)
    if size is None or (size == DEFAULT_SIZE_GIB and asked):  # an API server fills the default in
        return asked or DEFAULT_SIZE_GIB
    _warn_of_disagreement(keys.SIZE, asked, "imageCacheSize", size, findings)
    return size


def _retention(spec: Mapping[str, Any], annotations: Mapping[str, str], findings: Findings) -> int | None:
    days = _number(spec, "retentionDays", 1, MAX_RETENTION_DAYS, "spec", findings)
    asked = _asked(annotations, keys.RETENTION, keys.retention_days, findings)
    if days is None:
        return asked
    _warn_of_disagreement(keys.RETENTION, asked, "retentionDays", days, findings)
    return days


def _asked(
    annotations: Mapping[str, str], key: str, parse: Callable[[str], int], findings: Findings
) -> int | None:
    reader = keys.Annotations(annotations, "metadata.annotations", findings)
    return reader.value(key, None, parse)


def _warn_of_disagreement(key: str, asked: int | None, field: str, value: int, findings: Findings) -> None:
    if asked not in (None, value):
        findings.warn(f"metadata.annotations[{key}]", f"{asked} is overruled by spec.{field}: {value}")


def _number(
    fields: Mapping[str, Any], name: str, least: int, most: int, where: str, findings: Findings
) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        findings.refuse(
            _path(where, name), f"must be a whole number from {least} to {most}, not {shown(value)}"
        )
        return None
    return value


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
