"""When we ourselves fail: automatic matching fails open, an explicit id never does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import pytest

from imagecached.imagecache import Candidate, Candidates
from imagecached.kube.webhook.admission import Admission
from imagecached.kube.webhook.decide import Rules, Seen, Told
from imagecached.kube.webhook.review import Answer, Request
from imagecached.oci.reference import Reference
from tests.unit.imagecache.building import pod
from tests.unit.kube.webhook.reviewing import asking, known, naming, request


class Aftermath:
    """Remembers, and fails as told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.seen: list[Seen] = []
        self.told: list[Told] = []

    def look_at(self, seen: Seen) -> None:
        self.seen.append(seen)

    def tell(self, *told: Told) -> None:
        if self.failure:
            raise self.failure
        self.told += told


def admission(
    candidates: Callable[[], Candidates | None] = known,
    aftermath: Aftermath | None = None,
    outcomes: list[str] | None = None,
) -> Admission:
    seen = outcomes if outcomes is not None else []
    return Admission(candidates, aftermath or Aftermath(), Rules(), lambda outcome, _: seen.append(outcome))


def test_outcomes_are_counted() -> None:
    """One word and the time for each review."""
    outcomes: list[str] = []
    serving = admission(outcomes=outcomes)
    for asked in (asking("nginx:1"), asking("x:1"), naming("imc-x", "a"), request(pod("a"))):
        serving.mutate(asked)
    assert outcomes == ["full", "none", "not-found", "untouched"]


class Broken(Candidates):
    """Breaks when it is asked."""

    def named(self, name: str) -> None:
        raise RuntimeError("planted")

    def sharing(self, references: Iterable[Reference]) -> list[Candidate]:
        raise RuntimeError("planted")


@pytest.mark.parametrize(
    "failing", [admission(Broken), admission(aftermath=Aftermath(RuntimeError("planted")))]
)
def test_an_error_of_ours(failing: Admission, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; automatic matching lets the pod through unchanged, an explicit id is refused."""
    with caplog.at_level(logging.ERROR):
        assert failing.mutate(asking("nginx:1")) == Answer()
        refused = failing.mutate(naming("c", "nginx:1"))
    assert (refused.allowed, refused.code, refused.reason) == (False, 503, "ServiceUnavailable")
    assert [record.message for record in caplog.records] == ["admission failed", "admission failed"]


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [(asking("nginx:1"), True), (naming("c", "nginx:1"), False), (request(pod("a")), True)],
)
def test_before_the_caches_are_known(asked: Request, allowed: bool) -> None:
    """A replica that has just started must not tell that a cache does not exist."""
    answer = admission(lambda: None).mutate(asked)
    assert answer.allowed == allowed
    assert answer.patch == ()
    assert answer.message == (
        "" if allowed else "the image caches of the cluster are not known yet: try again in a moment"
    )


def test_observing_never_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """An event that cannot be told is logged, and the pod is stored."""
    seen = request(
        {"metadata": {"name": "p", "uid": "u", "annotations": {"imagecached.dev/match-degree": "none 0/1"}}}
    )
    aftermath = Aftermath()
    assert admission(aftermath=aftermath).observe(seen) == Answer()
    assert [told.reason for told in aftermath.told] == ["ImageCacheMissed"]
    assert admission(aftermath=Aftermath(RuntimeError("planted"))).observe(seen) == Answer()
    assert "pod not observed" in caplog.text
