"""The commands about the node: gc, fsck, doctor, events, version."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click

from imagecached import __version__
from imagecached.ctl.client import Daemon, NoDaemon
from imagecached.ctl.images import facts, print_events
from imagecached.ctl.output import percent, print_document, print_line, print_table, size
from imagecached.ctl.program import daemon, form, output_option
from imagecached.errors import AccessDenied, ImagecachedError
from imagecached.exits import DONE, EXIT_CODES, FAILED

_GONE: Final = ("images", "snapshots", "layers", "orphans")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@output_option
def gc(*, dry_run: bool) -> None:
    """Free what nothing uses; above the high watermark also images, least recently used first."""
    answer = daemon().post("/v1/gc", {"dry_run": dry_run})
    if form() != "table":
        print_document(answer, form())
        return
    rows = [(kind[:-1], subject) for kind in _GONE for subject in answer[kind]]
    if rows:
        print_table(("KIND", "SUBJECT"), rows)
    print(f"{'Would free' if dry_run else 'Freed'} {size(answer['freed_bytes'])}.")


@click.command()
@click.option("--repair", is_flag=True, help="Drop what is corrupt and mark its images.")
@output_option
def fsck(*, repair: bool) -> int:
    """Verify every file against its digest. Exit code 5 if a fault remains."""
    report = _checked(daemon(), repair=repair)
    if form() != "table":
        print_document({key: report[key] for key in ("faults", "files", "bytes")}, form())
    else:
        _print_report(report)
    return EXIT_CODES["corrupt"] if any(not fault["repaired"] for fault in report["faults"]) else DONE


def _checked(asked: Daemon, *, repair: bool) -> Mapping[str, Any]:
    live, drawn = sys.stderr.isatty(), False
    try:
        for line in asked.work("/v1/fsck", {"repair": repair}):
            if line["type"] == "done":
                return line
            if live:
                drawn = True
                done, total = line["bytes_done"], line["bytes_total"]
                print(
                    f"\r{size(done)} of {size(total)}, {percent(done, total)}\x1b[K",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    raise ImagecachedError("the daemon ended the check without a result")


def _print_report(report: Mapping[str, Any]) -> None:
    if report["faults"]:
        rows = [
            (fault["kind"], fault["subject"], "repaired" if fault["repaired"] else "-", fault["text"])
            for fault in report["faults"]
        ]
        print_table(("FAULT", "SUBJECT", "STATE", "WHAT"), rows)
    faults = len(report["faults"])
    print(f"Verified {report['files']} files, {size(report['bytes'])}. Faults: {faults}.")


@click.command()
@output_option
def doctor() -> int:
    """Can this host do it, and what to do if not. Works without a daemon, as root."""
    try:
        diagnosis = daemon().get("/v1/doctor")
    except NoDaemon:
        diagnosis = _examined_here(daemon().path)
    if form() != "table":
        print_document(diagnosis, form())
    else:
        _print_findings(diagnosis["findings"])
    return FAILED if any(finding["verdict"] == "fail" for finding in diagnosis["findings"]) else DONE


def _examined_here(socket: str) -> dict[str, Any]:
    """The other program does it: the client knows nothing of the daemon."""
    from subprocess import PIPE, run

    if os.geteuid() != 0:
        raise AccessDenied("no daemon answers, and to examine this host without one takes root")

    command = [sys.executable, "-m", "imagecached.cli", "doctor", "--socket", socket]
    ended = run(command, stdout=PIPE, check=False)
    if ended.returncode != DONE:
        raise ImagecachedError("this host could not be examined")
    return dict(json.loads(ended.stdout))


def _print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    from textwrap import fill

    width = max((len(finding["name"]) for finding in findings), default=0)
    for finding in findings:
        print(f"{finding['verdict'].upper():<4}   {finding['name'].ljust(width)}   {finding['text']}")
        if finding["advice"]:
            margin = " " * (width + 10)
            print(fill(f"→ {finding['advice']}", 110, initial_indent=margin, subsequent_indent=f"{margin}  "))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--since", type=click.IntRange(0), default=0, metavar="NUMBER", help="Only events after this number."
)
@output_option
def events(*, follow: bool, since: int) -> None:
    """What happened lately, oldest first."""
    lines = daemon().follow("/v1/events", follow=follow, since=since)
    if form() == "table" and not follow:
        print_events(list(lines))
        return
    for event in lines:
        del event["type"]
        if form() == "table":
            print(
                f"{event['time'][:19]}Z  {event['kind']}  {event['subject'] or '-'}  {facts(event)}".rstrip(),
                flush=True,
            )
        else:
            print_line(event, form())


@click.command()
@output_option
def version() -> None:
    """Of this program, and of the daemon if it runs."""
    answer: dict[str, Any] = {"client": __version__, "daemon": None}
    with suppress(NoDaemon):
        answer["daemon"] = daemon().get("/v1/version")["version"]
    if form() != "table":
        print_document(answer, form())
    else:
        print(f"imagecachectl {answer['client']}")
        print(f"imagecached {answer['daemon'] or 'does not run'}")


def add_to(program: click.Group) -> None:
    """Add this module's commands."""
    for command in (gc, fsck, doctor, events, version):
        program.add_command(command)
