"""The command line of ``imagecached``: serve, controller, config, version; doctor for a host without daemon.

The only place of the daemon that reads argv and turns errors into exit codes. Each command imports what
it needs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from imagecached import __version__
from imagecached.config import Config, load, render
from imagecached.errors import ImagecachedError
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
    commands.add_parser("version", help="print the version").set_defaults(command=_version)
    return parser


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


def _version(_: argparse.Namespace) -> int:
    print(f"imagecached {__version__}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
