"""Medians and ratios of benchmark rows, as a table."""

from __future__ import annotations

import statistics
from typing import Any

from tests.bench.contestants import Ours
from tests.support.listing import differences

FIGURES = ("wall_seconds", "cpu_seconds", "sync_seconds", "registry_bytes", "disk_bytes")


def medians(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """(image, contestant) → figure → median over the repetitions."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["image"], row["contestant"]), []).append(row)
    return {
        key: {name: statistics.median(row[name] for row in group) for name in FIGURES}
        for key, group in groups.items()
    }


def table(rows: list[dict[str, Any]], base: str | None = None) -> str:
    """A Markdown table; ratios are against ``base``, by default containerd, inflating by itself."""
    middle = medians(rows)
    names = list(dict.fromkeys(contestant for _, contestant in middle))
    base = base or next((name for name in ("containerd-other", "containerd") if name in names), names[0])
    lines = [
        f"Ratios are against {base}.\n",
        "| image | contestant | wall s (ratio) | CPU s (ratio) | sync s | MB sent | disk MB (ratio) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (image, contestant), row in middle.items():
        other = middle.get((image, base), row)
        cells = [f"{row[name]:.2f} ({row[name] / max(other[name], 1e-9):.2f})" for name in FIGURES[:2]]
        disk = f"{row['disk_bytes'] / 1e6:.0f} ({row['disk_bytes'] / max(other['disk_bytes'], 1):.2f})"
        cells += [f"{row['sync_seconds']:.2f}", f"{row['registry_bytes'] / 1e6:.1f}", disk]
        lines.append(f"| {image} | {contestant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare_trees(rows: list[dict[str, Any]]) -> bool:
    """Print every entry in which a contestant differs from ours about an image; True if any does."""
    trees = [row for row in rows if row.get("tree") is not None]
    ours = {row["image"]: row["tree"] for row in trees if row["contestant"] == Ours.name}
    wrong = False
    for row in trees:
        if row["contestant"] == Ours.name or row["image"] not in ours:
            continue
        lines = differences(ours[row["image"]], row["tree"], unpacked_after=row["unpacked_after"])
        print(f"{row['image']}: {len(row['tree'])} entries, {len(lines)} differ from {row['contestant']}")
        print("".join(f"  {line}\n" for line in lines), end="")
        wrong = wrong or bool(lines)
    return wrong
