"""What may become of a record: containerd's rules of snapshots, as pure functions over what is there.

They take records and give the record to write, or raise; they read and write nothing themselves. Words:
*key* names an active snapshot or a view, *name* a committed one, and both share one space of names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from imagecached.errors import FailedPrecondition, InvalidInput, NotFound
from imagecached.oci.digest import Digest
from imagecached.snapshotter.filters import Filter
from imagecached.store import REF, Kind, Record

_LABEL_BYTES: Final = 4096
_LABELS_PREFIX: Final = "labels."
_MADE_BY_CONTAINERD: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/[0-9]+/.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the ``snapshotter`` name it configured for us, which keeps its records apart, and its
    ``namespace``, if it says so (containerd 1.6 does not).
    """

    snapshotter: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is taken once for a change: the time in nanoseconds and a fresh number."""

    now: int
    number: int


def check_labels(labels: Mapping[str, str]) -> None:
    """InvalidInput: a label of more than 4096 bytes.

    Those that map ids are kept as any other: we announce no ``remap-ids``, so whoever wants owners mapped
    makes a snapshot with other owners for himself, as containerd does, and names that as the parent.
    """
    for key, value in labels.items():
        if len(key.encode()) + len(value.encode()) > _LABEL_BYTES:
            raise InvalidInput(f"label {key[:64]!r}: key and value are longer than {_LABEL_BYTES} bytes")


def check_name(name: str, what: str) -> None:
    """InvalidInput: no name at all."""
    if not name:
        raise InvalidInput(f"a {what} is missing")


def named_chain(labels: Mapping[str, str]) -> Digest | None:
    """The ChainID that a snapshot is to become, if its labels name one."""
    try:
        return Digest.parse(labels.get(REF, ""))
    except InvalidInput:
        return None


def named_anew(caller: Caller, existing: Record) -> bool:
    """Whether ``existing`` has a name that only a containerd whose database was lost would give once more.

    containerd names its snapshots ``<namespace>/<sequence>/<key>`` and gives no sequence number twice, so a
    name of that form that comes a second time comes from a database that began anew.
    """
    match = _MADE_BY_CONTAINERD.fullmatch(existing.name)
    return match is not None and caller.namespace in ("", match[1])


def opened(
    caller: Caller, key: str, kind: Kind, parent: Record | None, labels: Mapping[str, str], moment: Moment
) -> Record:
    """A new active snapshot or view on ``parent``."""
    if parent is not None and parent.kind != "committed":
        raise InvalidInput(f"snapshot {parent.name} is {parent.kind}, a parent is committed")
    return Record(
        snapshotter=caller.snapshotter,
        name=key,
        number=moment.number,
        kind=kind,
        parent=parent.name if parent else "",
        labels=dict(labels),
        created=moment.now,
        updated=moment.now,
    )


def adopted(
    caller: Caller, chain_id: Digest, parent: Record | None, labels: Mapping[str, str], moment: Moment
) -> Record:
    """The committed record by which the runtime knows a prepared chain above ``parent``.

    Its name is unlike any that containerd makes, and of its own for every parent: two namespaces have
    different names for the parent of one chain.
    """
    return Record(
        snapshotter=caller.snapshotter,
        name=f"imagecached/{chain_id}/{moment.number}",
        number=moment.number,
        kind="committed",
        parent=parent.name if parent else "",
        chain_id=chain_id,
        labels={**labels, REF: str(chain_id)},
        created=moment.now,
        updated=moment.now,
    )


def stands_on(parent: Record | None, chain_below: Digest | None) -> bool:
    """Whether ``parent`` holds the chain that a prepared one stands on. If in doubt it does not."""
    if parent is None or chain_below is None:
        return parent is None and chain_below is None
    if parent.kind != "committed":
        return False
    if parent.chain_id is not None:
        return parent.chain_id == chain_below
    return parent.labels.get(REF) == chain_below


def committed(
    name: str,
    active: Record | None,
    given: Record | None,
    labels: Mapping[str, str],
    *,
    key: str,
    given_name: str,
    now: int,
) -> Record:
    """What ``active``, found as ``key``, becomes under ``name``.

    ``given`` is what was found of the parent ``given_name`` that the request names, "" for none.
    """
    if active is None:
        raise NotFound(f"no snapshot {key}")
    if active.kind != "active":
        raise FailedPrecondition(f"snapshot {key} is {'a view' if active.kind == 'view' else 'committed'}")
    if given_name and given_name != active.parent:
        if active.parent:
            raise InvalidInput(f"snapshot {key} has parent {active.parent}, not {given_name}")
        if given is None:
            raise NotFound(f"no snapshot {given_name}")
        if given.kind != "committed":
            raise FailedPrecondition(f"snapshot {given_name} is {given.kind}, a parent is committed")
    return replace(
        active,
        name=name,
        kind="committed",
        parent=given_name or active.parent,
        labels=dict(labels),
        created=now,
        updated=now,
    )


def relabelled(record: Record, labels: Mapping[str, str], mask: Sequence[str], now: int) -> Record:
    """``record`` with the labels that ``mask`` names taken from ``labels``: all if there is no mask."""
    new = dict(record.labels) if mask else dict(labels)
    for path in mask:
        key = path.removeprefix(_LABELS_PREFIX)
        if path == "labels":
            new = dict(labels)
        elif key != path and key:
            new[key] = labels.get(key, "")
            if not new[key]:
                del new[key]
        else:
            raise InvalidInput(f"{path!r} of snapshot {record.name} cannot be changed")
    check_labels(new)
    return replace(record, labels=new, updated=now)


def check_removal(name: str, record: Record | None, children: Sequence[str]) -> Record:
    """The record if it may go; NotFound; FailedPrecondition: it has children."""
    if record is None:
        raise NotFound(f"no snapshot {name}")
    if children:
        raise FailedPrecondition(f"cannot remove snapshot {name}: it has {len(children)} children")
    return record


def asked_ref(filters: Sequence[Filter]) -> str | None:
    """The value of the label :data:`REF` that every one of ``filters`` demands, None if they do not."""
    refs = [
        {s.value for s in one if s.operator == "==" and s.path[0] == "labels" and ".".join(s.path[1:]) == REF}
        for one in filters
    ]
    common = set.intersection(*refs) if refs else set()
    return common.pop() if len(common) == 1 else None


def check_mountable(record: Record) -> None:
    """FailedPrecondition: a committed snapshot is not mounted itself."""
    if record.kind == "committed":
        raise FailedPrecondition(f"snapshot {record.name} is committed")


def field(record: Record, path: tuple[str, ...]) -> str | None:
    """What a filter sees of ``record``."""
    if path[0] == "kind":
        return record.kind
    if path[0] == "name":
        return record.name
    if path[0] == "parent":
        return record.parent
    if path[0] == "labels":
        return record.labels.get(".".join(path[1:]))
    return None
