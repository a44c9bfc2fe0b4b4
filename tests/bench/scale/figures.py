"""The rows of a simulation as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, a row per size."""
    lines = ["| " + " | ".join(name for name, _ in _COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(str(show(row)) for _, show in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def rest(rows: Sequence[Row]) -> str:
    """The same for clusters at rest."""
    lines = ["| nodes × caches | controller RSS MB | CPU s to start | MB listed |", "|---|---|---|---|"]
    names = ("controller_rss_mb", "start_cpu_seconds", "start_list_mb")
    for row in rows:
        cells = (f"{row['nodes']:,} × {row['caches']}", *(f"{row[name]:.0f}" for name in names))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _three(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{seconds[name]:.0f}" for name in ("first", "median", "last"))


def _per(row: Row) -> str:
    return f"{row['status_writes_per_node']:.0f}, {row['label_patches_per_node']:.0f}"


def _largest(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size / 1e3:.1f}" for size in sizes.values())


def _share(row: Row) -> str:
    seconds = row["cpu_seconds"]["controller"]
    return f"{seconds:.0f} ({100 * seconds / row['rollout_seconds']:.0f} %)"


def _quiet(requests: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in requests.items()) or "none"


_COLUMNS: tuple[tuple[str, Callable[[Row], Any]], ...] = (
    ("nodes × caches", lambda row: f"{row['nodes']:,} × {row['caches']}"),
    ("id after s", lambda row: f"{row['id_seconds']:.0f}"),
    ("Ready after s: first, median, last", lambda row: _three(row["ready_seconds"])),
    ("requests/s", lambda row: f"{row['requests_per_second']:.1f}"),
    ("nodes write KB/s", lambda row: f"{row['received_kb_per_second']:.0f}"),
    ("to the controller KB/s", lambda row: f"{row['to_controller_kb_per_second']:.0f}"),
    ("to all nodes KB/s", lambda row: f"{row['to_nodes_kb_per_second']:.0f}"),
    ("writes per cache", lambda row: f"{row['status_writes_per_cache']:.0f}"),
    ("writes, label patches per node", _per),
    ("ImageCache, NodeImageCache, Node largest KB", lambda row: _largest(row["largest_bytes"])),
    ("controller CPU s (share)", _share),
    ("controller RSS MB", lambda row: row.get("controller_rss_mb", "")),
    ("requests in a quiet hour", lambda row: _quiet(row["quiet_hour_requests"])),
)
