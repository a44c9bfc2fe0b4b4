"""What ``get imagecaches`` and ``describe`` say of ImageCaches: as kubectl does of the same objects."""

from __future__ import annotations

import sys

from imagecached.ctl.output import (
    age,
    print_document,
    print_fields,
    print_line,
    print_table,
    seconds,
    short,
    size,
)
from imagecached.ctl.program import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

    from imagecached.ctl.program import Call

_HEAD: Final = ("NAME", "AGE", "CACHEID", "PHASE", "PROGRESS")
_WIDE: Final = (*_HEAD, "SOURCE", "EXPIRES", "REASON")
_CONDITIONS: Final = ("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE")
_LAYERS: Final = ("LAYER", "BLOB", "TAR", "DISK", "IMAGES", "OBTAINED")
_PHASES: Final = ("resolve", "fetch", "prepare", "total")
_OBJECT: Final = "imagecache.eci.alibabacloud.com"
_PREFIXES: Final = ("imagecache/", "imagecaches/", "imc/", "ic/", f"{_OBJECT}/")


def bare(name: str) -> str:
    """A name without the kind before it, as kubectl prints and takes it."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def get_caches(call: Call, name: str | None, *, watch: bool) -> None:
    """What ``get imagecaches`` prints: as kubectl does for the same objects."""
    wanted = bare(name) if name else None
    if watch:
        _watch(call, wanted)
        return
    if wanted:
        caches = [call.daemon.get("/v1/imagecaches/describe", name=wanted)["imagecache"]]
        problems: list[str] = []
    else:
        answer = call.daemon.get("/v1/imagecaches")
        caches, problems = answer["imagecaches"], answer["problems"]
    for text in problems:
        complain(text)
    if call.form not in ("table", "wide"):
        print_document(caches[0] if wanted else {"imagecaches": caches, "problems": problems}, call.form)
    elif caches:
        print_table(_head(call), [_row(cache, wide=call.form == "wide") for cache in caches])
    else:
        print("No resources found", file=sys.stderr)


def _head(call: Call) -> tuple[str, ...]:
    return _WIDE if call.form == "wide" else _HEAD


def _row(cache: Mapping[str, Any], *, wide: bool) -> tuple[str, ...]:
    made = age(cache["created"]) if cache["created"] else "<unknown>"
    row = (cache["name"], made, cache["id"], cache["phase"], cache["progress"])
    if not wide:
        return row
    return (*row, cache["source"], cache["expires"] or "<none>", cache["reason"] or "<none>")


def _watch(call: Call, name: str | None) -> None:
    """A line whenever a cache has changed, until somebody ends it. Columns never get narrower."""
    query = {"name": name} if name else {}
    widths = [0] * len(_head(call))
    first = True
    for line in call.daemon.follow("/v1/imagecaches/watch", **query):
        if call.form not in ("table", "wide"):
            print_line(line, call.form)
            continue
        if line["type"] == "gone":
            continue
        rows = [*([_head(call)] if first else []), _row(line, wide=call.form == "wide")]
        first = False
        widths = [max(width, *(len(row[at]) for row in rows)) for at, width in enumerate(widths)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("   ".join(cells).rstrip(), flush=True)


def describe_cache(call: Call, name: str) -> None:
    """All that is known of one ImageCache."""
    answer = call.daemon.get("/v1/imagecaches/describe", name=name)
    if call.form != "table":
        print_document(answer, call.form)
        return
    print_fields(_fields(answer["imagecache"]))
    for image in answer["images"]:
        _print_image(image)
    if answer["imagecache"]["conditions"]:
        print("Conditions:")
        print_table(_CONDITIONS, map(_condition_row, answer["imagecache"]["conditions"]), indent="  ")
    print("Events:")
    print_table(("TYPE", "REASON", "AGE", "MESSAGE"), map(_event_row, answer["events"]), indent="  ")


def _condition_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    since = age(found["last_transition"])
    return (found["type"], found["status"], found["reason"] or "-", since, found["message"] or "-")


def _event_row(event: Mapping[str, Any]) -> tuple[str, ...]:
    times = f" (x{event['count']})" if event["count"] > 1 else ""
    return (event["type"], event["name"], age(event["time"]) + times, event["message"] or "-")


def _fields(cache: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Name", cache["name"]
    yield "Id", cache["id"]
    yield "Declared by", cache["origin"] or cache["source"]
    yield "Phase", f"{cache['phase']} {cache['progress']}"
    if cache["reason"]:
        yield "Reason", f"{cache['reason']}: {cache['message']}"
    yield "Generation", f"{cache['generation']}, {cache['serving_generation'] or 'none'} serves"
    fetched, reused = size(cache["bytes_fetched"]), size(cache["bytes_reused"])
    done, total = size(cache["bytes_done"]), size(cache["bytes_total"])
    yield "Bytes", f"{done} of {total}: {fetched} fetched, {reused} reused"
    if cache["size_gib"]:
        yield "Size", f"at most {cache['size_gib']} GiB"
    for title, key in (("Created", "created"), ("Updated", "updated"), ("Last matched", "last_matched")):
        if cache[key]:
            yield title, f"{cache[key][:19]}Z ({age(cache[key])} ago)"
    if cache["expires"]:
        yield "Expires", f"{cache['expires'][:19]}Z"
    if cache["drifted_images"]:
        yield "Drifted", ", ".join(cache["drifted_images"])


def _print_image(image: Mapping[str, Any]) -> None:
    print(f"Image {image['image']}:")
    split = image["seconds"]
    timing = ", ".join(f"{phase} {seconds(split[phase])}" for phase in _PHASES) if split else "not remembered"
    for title, value in (
        ("Digest", image["digest"] or "-"),
        ("Manifest", image["manifest_digest"] or "-"),
        ("Unpacked", size(image["unpacked_bytes"])),
        ("Timing", timing),
    ):
        print(f"  {title + ':':<10} {value}")
    print_table(_LAYERS, map(_layer_row, image["layers"]), indent="  ")


def _layer_row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (size(layer[key]) for key in ("blob_bytes", "tar_bytes", "disk_bytes"))
    return (short(layer["diff_id"]), *sizes, str(layer["images"]), layer["source"] or "-")
