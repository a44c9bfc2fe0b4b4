"""The commands about the node: gc, fsck, doctor, events, version."""

from __future__ import annotations

import os
import sys

from imagecached import __version__
from imagecached.ctl import wire
from imagecached.ctl.client import NoDaemon
from imagecached.ctl.images import facts, print_events
from imagecached.ctl.output import percent, print_document, print_line, print_table, size
from imagecached.errors import AccessDenied, ImagecachedError
from imagecached.exits import DONE, EXIT_CODES, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from imagecached.ctl.client import Daemon
    from imagecached.ctl.program import Call

_GONE: Final = ("images", "snapshots", "layers", "orphans")


def gc(call: Call, *, dry_run: bool) -> None:
    """Free what nothing uses, and above the high watermark images not used lately."""
    answer = call.daemon.post("/v1/gc", {"dry_run": dry_run})
    if call.form != "table":
        print_document(answer, call.form)
        return
    rows = [(kind[:-1], subject) for kind in _GONE for subject in answer[kind]]
    if rows:
        print_table(("KIND", "SUBJECT"), rows)
    print(f"{'Would free' if dry_run else 'Freed'} {size(answer['freed_bytes'])}.")


def fsck(call: Call, *, repair: bool) -> int:
    """Verify every file against its digest. Exit code 5 if a fault remains."""
    report = _checked(call.daemon, repair=repair)
    if call.form != "table":
        print_document({key: report[key] for key in ("faults", "files", "bytes")}, call.form)
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


def doctor(call: Call) -> int:
    """Can this host do it, and what to do if not. Works without a daemon, as root."""
    try:
        diagnosis = call.daemon.get("/v1/doctor")
    except NoDaemon:
        diagnosis = _examined_here(call.daemon.path)
    if call.form != "table":
        print_document(diagnosis, call.form)
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
    return dict(wire.decode(ended.stdout))


def _print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    from textwrap import fill

    width = max((len(finding["name"]) for finding in findings), default=0)
    for finding in findings:
        print(f"{finding['verdict'].upper():<4}   {finding['name'].ljust(width)}   {finding['text']}")
        if finding["advice"]:
            margin = " " * (width + 10)
            print(fill(f"→ {finding['advice']}", 110, initial_indent=margin, subsequent_indent=f"{margin}  "))


def events(call: Call, *, follow: bool, since: int) -> None:
    """What happened lately, oldest first."""
    lines = call.daemon.follow("/v1/events", follow=follow, since=since)
    if call.form == "table" and not follow:
        print_events(list(lines))
        return
    for event in lines:
        del event["type"]
        if call.form == "table":
            print(
                f"{event['time'][:19]}Z  {event['kind']}  {event['subject'] or '-'}  {facts(event)}".rstrip(),
                flush=True,
            )
        else:
            print_line(event, call.form)


def version(call: Call) -> None:
    """Of this program, and of the daemon if it runs."""
    answer = {"client": __version__, "daemon": _version(call.daemon)}
    if call.form != "table":
        print_document(answer, call.form)
    else:
        print(f"imagecachectl {answer['client']}")
        print(f"imagecached {answer['daemon'] or 'does not run'}")


def _version(asked: Daemon) -> str | None:
    try:
        return str(asked.get("/v1/version")["version"])
    except NoDaemon:
        return None
