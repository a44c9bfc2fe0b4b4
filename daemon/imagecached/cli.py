"""The command line of ``imagecached``: serve, controller, config, version; doctor and containerd for scripts.

The only place of the daemon that reads argv and turns errors into exit codes. Each command imports what
it needs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagecached import __version__
from imagecached.config import Config, load, render
from imagecached.errors import FailedPrecondition, ImagecachedError
from imagecached.exits import DONE, EXIT_CODES, FAILED, INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.command(chosen))
    except ImagecachedError as error:
        print(f"imagecached: {error}", file=sys.stderr)
        return EXIT_CODES[error.kind]
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # no traceback reaches a user; the log has it at level debug
        logging.getLogger(__name__).debug("internal error", exc_info=True)
        print(f"imagecached: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagecached", description="Container images, ready in milliseconds."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/imagecached/config.toml"
    )
    configured.add_argument("--root", metavar="DIR", help="where images are kept (daemon.root)")
    configured.add_argument(
        "--socket", metavar="PATH", help="where imagecachectl finds the daemon (daemon.socket)"
    )
    for name, command, summary in (
        ("serve", _serve, "run the node daemon"),
        ("controller", _controller, "run the cluster's controller and admission webhook"),
        ("config", _config, "print the effective configuration, every key with its meaning"),
        ("doctor", _doctor, "examine this host and print the findings as JSON"),
    ):
        commands.add_parser(name, help=summary, description=summary, parents=[configured]).set_defaults(
            command=command
        )
    _add_containerd(commands)
    commands.add_parser("version", help="print the version").set_defaults(command=_version)
    return parser


def _add_containerd(commands: Any) -> None:
    """What scripts/install and uninstall call; nothing is started or stopped."""
    summary = "put our settings into containerd's configuration, or take them out"
    parser = commands.add_parser("containerd", help=summary, description=summary)
    parser.add_argument("action", choices=("check", "install", "remove", "serves"))
    parser.add_argument("--mode", choices=("handler", "default"), default="handler")
    parser.add_argument(
        "--destdir", type=Path, default=Path("/"), metavar="DIR", help="all files are below it"
    )
    parser.add_argument("--program", default="containerd", metavar="FILE", help="instead of the one on PATH")
    # A pod on the node, and a test, have some of the files elsewhere.
    parser.add_argument("--main", type=Path, metavar="FILE", help="containerd's configuration")
    parser.add_argument("--records", type=Path, metavar="DIR", help="where the way back is kept")
    parser.add_argument("--data", type=Path, metavar="DIR", help="containerd's root if the files do not say")
    parser.add_argument("--snapshots", type=Path, metavar="PATH", help="our snapshots socket")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where images are kept")
    parser.set_defaults(command=_containerd)


def _configuration(chosen: argparse.Namespace) -> Config:
    flags = {"daemon.root": chosen.root, "daemon.socket": chosen.socket}
    return load(chosen.config, flags={key: value for key, value in flags.items() if value is not None})


def _serve(chosen: argparse.Namespace) -> int:
    config = _configuration(chosen)
    from imagecached import daemon
    from imagecached.telemetry import start_logging

    start_logging(config.log.level, config.log.format)
    return daemon.serve(config)


def _controller(chosen: argparse.Namespace) -> int:
    config = _configuration(chosen)
    from imagecached import controller
    from imagecached.telemetry import start_logging

    start_logging(config.log.level, config.log.format)
    return controller.serve(config)


def _config(chosen: argparse.Namespace) -> int:
    print(render(_configuration(chosen)), end="")
    return DONE


def _doctor(chosen: argparse.Namespace) -> int:
    import json

    from imagecached import doctor

    findings = doctor.examine(_configuration(chosen))
    keys = ("name", "verdict", "text", "advice")
    print(json.dumps({"findings": [{key: getattr(found, key) for key in keys} for found in findings]}))
    return DONE


def _containerd(chosen: argparse.Namespace) -> int:
    """``install`` and ``remove`` print whether containerd must be restarted."""
    from imagecached.doctor import in_use, why_no_pods
    from imagecached.dropin import Places
    from imagecached.dropin.setup import DATA, MAIN, RECORDS, Setup

    main, records, data = (chosen.destdir / path.relative_to("/") for path in (MAIN, RECORDS, DATA))
    setup = Setup(chosen.main or main, chosen.records or records, chosen.program, chosen.data or data)
    file = chosen.destdir / "etc/imagecached/config.toml"
    config, default = load(file if file.exists() else None), Places()
    places = Places(
        chosen.snapshots or Path(config.snapshotter.socket or default.socket),
        chosen.root or config.daemon.root,
    )
    match chosen.action:
        case "check":
            setup.check(chosen.mode, places, in_use(setup.address()))
        case "serves":
            if why := why_no_pods(setup.address()):
                raise FailedPrecondition(why)
        case "install":
            changed = setup.install(chosen.mode, places, in_use(setup.address()))
            print("changed" if changed else "unchanged")
        case "remove":
            from imagecached.registration.farewell import forget

            for name in forget(setup.address(), config.containerd.namespaces):
                print(f"containerd forgets {name}, whose layers only we have", file=sys.stderr)
            print("changed" if setup.undo() else "unchanged")
    return DONE


def _version(_: argparse.Namespace) -> int:
    print(f"imagecached {__version__}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
