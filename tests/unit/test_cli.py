"""imagecached: config, version, doctor, and how serve is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagecached import __version__, cli
from imagecached.config import Config, load, render
from imagecached.errors import FailedPrecondition


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's configuration."""
    monkeypatch.setattr("imagecached.config.sources.DEFAULT_PATH", Path("/nonexistent/config.toml"))
    for name in os.environ:
        if name.startswith("IMAGECACHED_"):
            monkeypatch.delenv(name)


def test_config_prints_the_effective_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From file, environment and flags; what it prints can be used as a file."""
    file, printed = tmp_path / "a.toml", tmp_path / "b.toml"
    file.write_text("[pull]\nimages_at_once = 2\n")
    monkeypatch.setenv("IMAGECACHED_LOG__LEVEL", "debug")
    assert cli.main(["config", "--config", str(file), "--root", "/r", "--socket", "/s"]) == 0
    printed.write_text(capsys.readouterr().out)
    config = load(printed, environ={})
    assert (config.pull.images_at_once, config.log.level) == (2, "debug")
    assert (config.daemon.root, config.daemon.socket) == (Path("/r"), Path("/s"))


def test_config_without_anything_prints_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Every key of them."""
    assert cli.main(["config"]) == 0
    assert capsys.readouterr().out == render(Config())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"imagecached {__version__}\n"


def test_a_wrong_configuration_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names file and key; exit code 2, which no supervisor should retry."""
    file = tmp_path / "config.toml"
    file.write_text("[store]\nqouta_bytes = 1\n")
    assert cli.main(["serve", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"imagecached: {file}: store.qouta_bytes: no such key\n"
    assert cli.main(["serve", "--config", str(tmp_path / "none")]) == 3


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--rot", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and how it is meant."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: imagecached" in capsys.readouterr().err


def test_serve_runs_the_daemon_with_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is the exit code."""
    seen: list[Config] = []

    def serve(config: Config) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr("imagecached.daemon.serve", serve)
    monkeypatch.setattr("imagecached.telemetry.start_logging", lambda *_: None)
    assert cli.main(["serve", "--root", "/r"]) == 0
    assert [config.daemon.root for config in seen] == [Path("/r")]


@pytest.mark.parametrize(
    ("error", "code"), [(FailedPrecondition("root is in use"), 1), (KeyboardInterrupt(), 130)]
)
def test_serve_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    """The reason in one line, without a traceback."""

    def serve(_: Config) -> int:
        raise error

    monkeypatch.setattr("imagecached.daemon.serve", serve)
    monkeypatch.setattr("imagecached.telemetry.start_logging", lambda *_: None)
    assert cli.main(["serve"]) == code
    assert capsys.readouterr().err == (f"imagecached: {error}\n" if str(error) else "")


def test_doctor_prints_findings(capsys: pytest.CaptureFixture[str]) -> None:
    """For imagecachectl, which does not know the daemon's code."""
    assert cli.main(["doctor"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings
    assert all(set(finding) == {"name", "verdict", "text", "advice"} for finding in findings)


def test_it_can_be_run_as_a_module() -> None:
    """That is how imagecachectl calls it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-m", "imagecached.cli", "version"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"imagecached {__version__}\n"


def test_the_unforeseen_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault of ours is told in a line with exit code 1, never as a traceback."""

    def broken(_: object) -> str:
        raise ZeroDivisionError("never mind")

    monkeypatch.setattr(cli, "render", broken)
    assert cli.main(["config"]) == 1
    assert capsys.readouterr().err == "imagecached: internal error: ZeroDivisionError: never mind\n"


def test_the_controller_is_given_its_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its sections come from the same file and environment as the daemon's."""
    from imagecached import controller

    given: list[Config] = []

    def serve(config: Config) -> int:
        given.append(config)
        return 0

    monkeypatch.setattr(controller, "serve", serve)
    monkeypatch.setenv("IMAGECACHED_CONTROLLER__ROLLOUT_NODES", "7")
    file = tmp_path / "a.toml"
    file.write_text('[kubernetes]\nkubeconfig = "/k"\n')
    assert cli.main(["controller", "--config", str(file)]) == 0
    assert (given[0].controller.rollout_nodes, given[0].kubernetes.kubeconfig) == (7, "/k")


def test_lease_times_must_fit_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A leader that renews for longer than it is believed would meet a second one."""
    file = tmp_path / "a.toml"
    file.write_text("[controller]\nlease_renew_seconds = 20.0\n")
    assert cli.main(["config", "--config", str(file)]) == 2
    assert (
        "controller.lease_*: expected retry < renew < lease_seconds, got 2.0, 20.0 and 15.0"
        in capsys.readouterr().err
    )
