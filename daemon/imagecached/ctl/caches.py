"""The commands about ImageCaches: apply, delete, match; and the choice of one for mount and run."""

from __future__ import annotations

import sys

from imagecached.ctl.cacheviews import bare
from imagecached.ctl.client import error_of
from imagecached.ctl.output import print_document, print_fields, print_table
from imagecached.ctl.program import complain
from imagecached.ctl.progress import display
from imagecached.errors import FailedPrecondition, ImagecachedError, InvalidInput, Unavailable
from imagecached.exits import DONE, EXIT_CODES, USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from imagecached.ctl.client import Daemon
    from imagecached.ctl.program import Call

_OBJECT: Final = "imagecache.eci.alibabacloud.com"
_FILE_BYTES: Final = 1 << 20
_ID_LENGTH: Final = 24
_REASONS: Final = {
    "AccessDenied": "access_denied",
    "Corrupt": "corrupt",
    "ImageNotFound": "not_found",
    "OutOfSpace": "out_of_space",
    "RegistryUnavailable": "unavailable",
}
"""Reason of a failed build → kind of error, and so exit code."""


def is_id(text: str) -> bool:
    """Has ``text`` the form of an ImageCache's id?"""
    return text.startswith("imc-") and len(text) == _ID_LENGTH and text[4:].isalnum() and text.islower()


def read(file: str) -> str:
    """The text of a file; ``-`` is standard input. InvalidInput: unreadable, too large, or no text."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_FILE_BYTES + 1)
        else:
            with open(file, "rb") as stream:  # noqa: PTH123  pathlib takes longer to import than all the rest
                data = stream.read(_FILE_BYTES + 1)
        if len(data) > _FILE_BYTES:
            raise InvalidInput(f"{file}: larger than {_FILE_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: not UTF-8") from error


def apply(call: Call, *, filename: Sequence[str], wait: bool, timeout: int, quiet: bool) -> int:
    """Declare the ImageCaches of files; with ``wait`` until each is Ready or has failed."""
    if not filename:
        raise InvalidInput("apply: name files with -f FILE, - for standard input")
    answers = [
        call.daemon.post("/v1/imagecaches", {"manifests": read(file), "source": file}) for file in filename
    ]
    applied = [one for answer in answers for one in answer["applied"]]
    problems = [text for answer in answers for text in answer["problems"]]
    for text in [text for answer in answers for text in answer["warnings"]]:
        complain(f"warning: {text}")
    for text in problems:
        complain(text)
    if call.form == "table":
        for one in applied:
            print(f"{_OBJECT}/{one['name']} {one['outcome']}", flush=True)
    if not (applied or problems):
        raise InvalidInput("no ImageCache in what was given")
    ended = _wait(call.daemon, [one["id"] for one in applied], timeout, quiet=quiet) if wait else []
    if call.form != "table":
        document = {"applied": applied, "problems": problems}
        print_document({**document, "imagecaches": ended} if wait else document, call.form)
    return USAGE if problems else max((_exit_code(one) for one in ended), default=DONE)


def _wait(asked: Daemon, ids: Sequence[str], timeout: int, *, quiet: bool) -> list[dict[str, Any]]:
    """Show how far they are until nothing more is done about any of them."""
    ended: dict[str, dict[str, Any]] = {}
    if not ids:
        return []
    with display(quiet=quiet) as shown:
        for line in asked.follow("/v1/imagecaches/watch", timeout_seconds=timeout):
            if line["id"] not in ids:
                continue
            if line["type"] == "gone":
                raise FailedPrecondition(f"ImageCache {line['id']} was deleted meanwhile")
            shown.show(_progress(line))
            if line["settled"]:
                ended[line["id"]] = line
            else:
                ended.pop(line["id"], None)
            if len(ended) == len(set(ids)):
                return [ended[each] for each in dict.fromkeys(ids)]
    raise Unavailable(
        f"not ready after {timeout} s; the daemon goes on: imagecachectl get imagecaches --watch"
    )


def _progress(cache: Mapping[str, Any]) -> dict[str, Any]:
    """As a pull's progress, for the same display."""
    why = f" ({cache['reason']})" if cache["reason"] else ""
    numbers = {key: cache[key] for key in ("bytes_total", "bytes_done", "bytes_reused")}
    return {"image": cache["name"], "state": cache["phase"] + why, **numbers}


def _exit_code(cache: Mapping[str, Any]) -> int:
    """Of a cache about which nothing more is done; a failure is said on standard error."""
    if cache["phase"] == "Ready":
        return DONE
    complain(f"{cache['name']}: {cache['phase']}: {cache['message']}")
    return EXIT_CODES[_REASONS.get(cache["reason"], ImagecachedError.kind)]


def delete(call: Call, *, names: Sequence[str]) -> None:
    """Take back what was applied; the first that is not there ends it."""
    for name in names:
        gone = call.daemon.delete("/v1/imagecaches", name=bare(name))
        print(f'{_OBJECT} "{gone["name"]}" deleted')


def match(call: Call, *, filename: Sequence[str]) -> int:
    """Which ImageCache the pods of files would get, and why."""
    if not filename:
        raise InvalidInput("match: name files with -f FILE, - for standard input")
    answers = [
        call.daemon.post("/v1/matches", {"manifests": read(file), "source": file}) for file in filename
    ]
    matches = [one for answer in answers for one in answer["matches"]]
    problems = [text for answer in answers for text in answer["problems"]]
    for text in problems:
        complain(text)
    if call.form != "table":
        print_document({"matches": matches, "problems": problems}, call.form)
    else:
        for one in matches:
            _print_match(one)
    refused = [one for one in matches if one["outcome"] in ("not-found", "not-complete")]
    if problems or not matches:
        return USAGE
    return EXIT_CODES["not_found" if refused[0]["outcome"] == "not-found" else "failed"] if refused else DONE


def _print_match(found: Mapping[str, Any]) -> None:
    who = "/".join(filter(None, (found["namespace"], found["name"])))
    cache = f"{found['cache']} ({found['cache_id']})" if found["cache"] else "none"
    print_fields(
        [
            (found["kind"], who or "-"),
            ("Cache", cache),
            ("Degree", found["degree"]),
            ("Why", found["reason"]),
            *(("Pinned", f"{image} -> {pinned}") for image, pinned in found["pinned"].items()),
            *([("Creates", found["creates"])] if found["creates"] else []),
            *(("Warning", warning) for warning in found["warnings"]),
        ]
    )
    if found["verdicts"]:
        rows = [
            (one["name"], one["id"], str(one["full"]), str(one["repositories"]), one["reason"])
            for one in found["verdicts"]
        ]
        print_table(("CANDIDATE", "CACHEID", "FULL", "OTHER", "WHY"), rows, indent="  ")


def choose(asked: Daemon, image: str, annotations: Mapping[str, str]) -> str:
    """The image to use for ``image``, which may be an ImageCache's id, with a pod's annotations."""
    if not (annotations or is_id(image)):
        return image
    answer = asked.post("/v1/choices", {"image": image, "annotations": dict(annotations)})
    found = answer["match"]
    if found is not None:
        complain(f"{found['degree']}: {found['reason']}")
    name = answer["image"]
    if not isinstance(name, str):
        raise error_of({"message": "the daemon chose no image"})
    return name
