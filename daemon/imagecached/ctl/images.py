"""The commands about images: pull, get, describe, rm."""

from __future__ import annotations

from imagecached.ctl.client import error_of
from imagecached.ctl.commands import CACHES
from imagecached.ctl.output import age, print_document, print_fields, print_table, seconds, short, size
from imagecached.ctl.program import complain
from imagecached.ctl.progress import display
from imagecached.errors import InvalidInput, NotFound
from imagecached.exits import DONE, EXIT_CODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from imagecached.ctl.client import Daemon
    from imagecached.ctl.program import Call

_PULLED: Final = ("NAME", "PHASE", "PROGRESS", "DOWNLOADED", "REUSED", "RESOLVE", "FETCH", "PREPARE", "TOTAL")
_PHASES: Final = ("resolve", "fetch", "prepare", "total")


def pull_images(
    asked: Daemon, names: Sequence[str], platform: str = "", *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Pull ``names`` showing progress; what became of each, in that order."""
    return _brought(asked, "/v1/pulls", {"images": list(names), "platform": platform}, quiet=quiet)


def _brought(asked: Daemon, path: str, wanted: Mapping[str, Any], *, quiet: bool) -> list[dict[str, Any]]:
    with display(quiet=quiet) as shown:
        for line in asked.work(path, wanted):
            if line["type"] == "done":
                return list(line["images"])
            shown.show(line)
    raise error_of({"message": "the daemon ended it without a result"})


def pull(call: Call, *, images: Sequence[str], platform: str, quiet: bool) -> int:
    """The exit code is of the first image that failed."""
    return _report(call, pull_images(call.daemon, images, platform, quiet=quiet))


def blobs(call: Call, *, action: str, images: Sequence[str], quiet: bool) -> int:  # noqa: ARG001  the only one
    """Bring the layers of images into containerd as the registry has them. Exit code as of pull."""
    return _report(call, _brought(call.daemon, "/v1/blobs", {"images": list(images)}, quiet=quiet))


def _report(call: Call, ended: Sequence[Mapping[str, Any]]) -> int:
    if call.form == "table":
        print_table(_PULLED, [_pulled_row(image) for image in ended])
    else:
        print_document({"images": ended}, call.form)
    failed = [image for image in ended if image["state"] == "failed"]
    for image in failed:
        complain(f"{image['image']}: {image['error']['message']}")
    return EXIT_CODES[error_of(failed[0]["error"]).kind] if failed else DONE


def _pulled_row(image: Mapping[str, Any]) -> tuple[str, ...]:
    if image["state"] == "failed":
        return (image["image"], "Failed", *("-" for _ in _PULLED[2:]))
    downloaded, reused = size(image["bytes_downloaded"]), size(image["bytes_reused"])
    phases = (seconds(image["seconds"][phase]) for phase in _PHASES)
    return (image["image"], "Ready", "100%", downloaded, reused, *phases)


def get(call: Call, *, kind: str, name: str | None, watch: bool) -> None:
    """What is there: all of ``kind``, or one by its name or (the beginning of) its digest."""
    if kind in CACHES:
        from imagecached.ctl.cacheviews import get_caches

        get_caches(call, name, watch=watch)
        return
    if watch:
        raise InvalidInput(f"get {kind}: only imagecaches can be watched")
    if kind == "images" and name:
        items = [call.daemon.get("/v1/images/describe", name=name)["image"]]
    else:
        items = call.daemon.get(f"/v1/{kind}")[kind]
    if kind != "images" and name:
        items = [
            item for item in items if _begins(item["chain_id" if kind == "snapshots" else "diff_id"], name)
        ]
        if not items:
            raise NotFound(f"no {kind[:-1]} {name}")
    if call.form in ("table", "wide"):
        head, row = _WIDE.get(kind, _TABLES[kind]) if call.form == "wide" else _TABLES[kind]
        print_table(head, [row(item) for item in items])
    else:
        print_document(items[0] if name and len(items) == 1 else {kind: items}, call.form)


def _begins(digest: str, name: str) -> bool:
    return digest.startswith(name) or digest.partition(":")[2].startswith(name)


def _image_row(image: Mapping[str, Any]) -> tuple[str, ...]:
    phase = ("Damaged", "-") if image["damaged"] else ("Ready", "100%")
    disk, layers = size(image["disk_bytes"]), str(image["layers"])
    return (image["name"], age(image["created"]), short(image["chain_id"]), *phase, disk, layers)


def _snapshot_row(snapshot: Mapping[str, Any]) -> tuple[str, ...]:
    parts = [short(snapshot[key]) for key in ("chain_id", "parent", "diff_id")]
    seam = "yes" if snapshot["seam"] else "-"
    return (*parts, size(snapshot["disk_bytes"]), seam, age(snapshot["created"]))


def _layer_row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = [size(layer[key]) for key in ("tar_bytes", "disk_bytes")]
    counts = [str(layer[key]) for key in ("entries", "images")]
    return (short(layer["diff_id"]), *sizes, *counts, age(layer["last_used"]), age(layer["created"]))


_TABLES: Final = {
    "images": (("NAME", "AGE", "SNAPSHOT", "PHASE", "PROGRESS", "DISK", "LAYERS"), _image_row),
    "snapshots": (("SNAPSHOT", "PARENT", "LAYER", "DISK", "SEAM", "AGE"), _snapshot_row),
    "layers": (("LAYER", "SIZE", "DISK", "ENTRIES", "IMAGES", "USED", "AGE"), _layer_row),
}


def _wide_image_row(image: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_image_row(image), *_registered(image))


def _registered(image: Mapping[str, Any]) -> tuple[str, str]:
    """What containerd knows, and why it does not."""
    found = image["registration"]
    if found is None:
        return ("-", "-")
    state = str(found["state"]).capitalize()
    return (f"{state}, pinned" if found["pinned"] else state, found["reason"] or "-")


_WIDE: Final = {"images": ((*_TABLES["images"][0], "CONTAINERD", "REASON"), _wide_image_row)}


def describe(call: Call, *, image: str) -> None:
    """All that is known of one image, or of an ImageCache where no image has this name."""
    try:
        answer = _described(call.daemon, image)
    except (NotFound, InvalidInput):
        from imagecached.ctl.cacheviews import bare, describe_cache

        try:
            describe_cache(call, bare(image))
        except (NotFound, InvalidInput):
            pass
        else:
            return
        raise
    if call.form != "table":
        print_document(answer, call.form)
        return
    found = answer["image"]
    print_fields(
        [
            ("Name", found["name"]),
            ("Phase", "Damaged: pull it again" if found["damaged"] else "Ready 100%"),
            ("Platform", found["platform"]),
            ("Target", f"{answer['target_digest']} ({answer['target_media_type']})"),
            ("Manifest", found["manifest_digest"]),
            ("Snapshot", found["chain_id"]),
            ("Disk", size(found["disk_bytes"])),
            ("Containerd", " ".join(word for word in _registered(found) if word != "-") or "not told"),
            ("Created", _when(found["created"])),
            ("Last used", _when(found["last_used"])),
            ("Timing", _timing(answer["seconds"])),
        ]
    )
    print("Layers:")
    head = ("LAYER", "BLOB", "TAR", "DISK", "ENTRIES", "IMAGES", "OBTAINED")
    print_table(head, [_described_row(layer) for layer in answer["layers"]], indent="  ")
    print("Events:")
    print_events(answer["events"], indent="  ")


def _described(asked: Daemon, image: str) -> dict[str, Any]:
    if image.startswith("imc-"):
        raise NotFound(f"no ImageCache {image}")
    return asked.get("/v1/images/describe", name=image)


def _when(moment: str) -> str:
    return f"{moment[:19]}Z ({age(moment)} ago)"


def _timing(split: Mapping[str, float] | None) -> str:
    if split is None:
        return "not remembered: pulled before the daemon's last start"
    return ", ".join(f"{phase} {seconds(split[phase])}" for phase in _PHASES)


def _described_row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = [size(layer[key]) for key in ("blob_bytes", "tar_bytes", "disk_bytes")]
    entries = "-" if layer["entries"] is None else str(layer["entries"])
    return (short(layer["diff_id"]), *sizes, entries, str(layer["images"]), layer["source"] or "-")


def print_events(events: Sequence[Mapping[str, Any]], indent: str = "") -> None:
    """Events as a table."""
    rows = [(age(event["time"]), event["kind"], event["subject"] or "-", facts(event)) for event in events]
    print_table(("AGE", "KIND", "SUBJECT", "FACTS"), rows, indent=indent)


def facts(event: Mapping[str, Any]) -> str:
    """What an event says, without its nested parts."""
    plain = {name: value for name, value in event["facts"].items() if not isinstance(value, dict | list)}
    return " ".join(f"{name}={value}" for name, value in plain.items())


def rm(call: Call, *, images: Sequence[str]) -> None:
    """Forget images; the first that is not here ends it."""
    for image in images:
        call.daemon.delete("/v1/images", name=image)
