"""What is to be done about one cache, and what is written of it: pure."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from imagecached.imagecache import (
    EVERYBODY,
    Bytes,
    ImageStatus,
    Removal,
    Status,
    parse_status,
    phases,
    status_document,
)
from imagecached.kube.controller.known import Known, fitted, patch
from imagecached.kube.controller.plan import Plan, Resolution, plan, urgent
from imagecached.kube.controller.settings import Settings
from imagecached.kube.controller.tally import Tally
from tests.unit.kube.controller.building import (
    DIGEST,
    NOW,
    begun,
    cache,
    cache_document,
    creating,
    known,
    ready,
)

WEB = cache()
SETTINGS = Settings()
IMAGES = (ImageStatus("registry.example/web:1", DIGEST, (DIGEST,), 1000),)


def planned(
    status: Status | None,
    tally: Tally | None = None,
    *,
    resolution: Resolution | None = None,
    waited: float = 0.0,
    at: float = NOW + 10,
    made: Known | None = None,
) -> Plan:
    """The plan ten seconds after the cache was made; one node is there unless the tally says otherwise."""
    tally = tally or Tally(total=1, open=1, ranks=(5,))
    object_ = made or known(WEB, status)
    return plan(object_, lambda _: tally, at, SETTINGS, resolution=resolution, waited=waited)


def test_the_first_thing_is_the_id() -> None:
    """Before any registry or node is asked."""
    made = planned(None)
    assert made.status is not None
    assert (made.status.phase, made.status.image_cache_id) == ("Pending", WEB.id)
    assert not made.resolve
    assert made.again == 0.0


def test_the_second_is_to_resolve() -> None:
    """Unless no node is there to hold anything."""
    assert planned(begun(WEB)).resolve
    assert not planned(begun(WEB), Tally()).resolve


@pytest.mark.parametrize("final", [True, False])
def test_a_failure_to_resolve_is_told_and_is_final_at_once_or_in_the_end(final: bool) -> None:
    """What may pass is tried again for as long as the settings say."""
    status = begun(WEB)
    refused = Resolution(status.build, reason="RegistryUnavailable", message="no route", final=final)
    made = planned(status, resolution=refused)
    assert made.status is not None
    assert (made.status.phase, made.status.reason) == (
        "Failed" if final else "Pending",
        "RegistryUnavailable",
    )
    late = planned(status, resolution=refused, waited=SETTINGS.resolve_patience)
    assert late.status is not None
    assert late.status.phase == "Failed"


def test_an_answer_for_another_build_is_no_answer() -> None:
    """The images may have been edited while a registry was asked."""
    made = planned(begun(WEB), resolution=Resolution("another", IMAGES))
    assert (made.status, made.resolve) == (None, True)


def test_digests_open_the_window() -> None:
    """With them the nodes may begin."""
    status = begun(WEB)
    made = planned(status, resolution=Resolution(status.build, IMAGES))
    assert made.status is not None
    assert (made.status.phase, made.status.images) == ("Creating", IMAGES)
    opened = planned(made.status)
    assert opened.status is not None
    assert opened.status.rollout_window == EVERYBODY


@pytest.mark.parametrize(
    ("tally", "phase", "reason"),
    [
        (Tally(total=2, ready=1, open=1, ranks=(1,)), "Creating", ""),
        (Tally(total=2, ready=2), "Ready", ""),
        (Tally(total=2, ready=1, failed=1, failure=("OutOfSpace", "full")), "Ready", ""),
        (Tally(total=2, failed=2, failure=("OutOfSpace", "full")), "Failed", "OutOfSpace"),
        (Tally(total=2), "Creating", "NodesDown"),
        (Tally(), "Creating", "NoNodes"),
        (Tally(total=2, failed=1, open=1, failure=("OutOfSpace", "full")), "Creating", "NodesFailed"),
    ],
)
def test_the_nodes_decide_the_phase(tally: Tally, phase: str, reason: str) -> None:
    """And a build that does not get on says why."""
    made = planned(creating(WEB), tally)
    assert made.status is not None
    assert (made.status.phase, made.status.reason) == (phase, reason)


def test_flash_is_content_with_one_node() -> None:
    """The others follow behind the window as before."""
    flash = cache(annotations={"k8s.aliyun.com/imc-enable-flash": "true"})
    some = Tally(total=100, ready=1, open=99, ranks=tuple(range(0, 9900, 100)))
    made = planned(None, some, made=known(flash, creating(flash)))
    assert made.status is not None
    assert made.status.phase == "Ready"
    assert made.status.rollout_window < EVERYBODY


def test_plans_come_to_rest() -> None:
    """Planning again from what a plan wrote writes nothing: no loop can feed itself."""
    status: Status = begun(WEB)
    answer = Resolution(status.build, IMAGES)
    done = Tally(total=1, ready=1, moved=Bytes(10, 10, 0, 10))
    for _ in range(5):
        made = planned(status, done, resolution=answer)
        status = made.status or status
    assert status.phase == "Ready"
    assert patch(known(WEB, status), status) == {}
    assert planned(status, done, at=NOW + 5000).status == status


def test_an_end_comes_before_everything_else() -> None:
    """An expired cache is not built anew first."""
    short = cache(retentionDays=1)
    made = planned(None, made=known(short, ready(short)), at=NOW + 86_400)
    assert isinstance(made.removal, Removal)
    assert made.status is None
    before = planned(None, Tally(total=1, ready=1), made=known(short, ready(short)), at=NOW + 86_000)
    assert before.removal is None
    assert before.again == pytest.approx(400.0)


def test_an_object_on_its_way_out_is_left_alone() -> None:
    """Its finalizers are somebody else's."""
    document = cache_document()
    document["metadata"] |= {"deletionTimestamp": "2023-11-14T22:13:20Z", "resourceVersion": "9"}
    assert planned(None, made=Known.of(document)) == Plan()


def test_numbers_alone_are_not_urgent() -> None:
    """They go to every node, and can wait."""
    status = ready(WEB)
    assert not urgent(status, replace(status, nodes_ready=5, nodes_total=9, last_updated_time=NOW + 99))
    assert urgent(status, replace(status, rollout_window=7))
    assert urgent(status, phases.begin(cache("web", "registry.example/web:2"), status, NOW))


def test_a_patch_holds_what_differs_and_never_the_last_match() -> None:
    """Admission writes that at the same time, and must not be undone."""
    written = {**status_document(creating(WEB)), "lastMatchedTime": "2023-11-14T22:13:20Z", "stranger": 1}
    document = {**cache_document(), "status": written}
    document["metadata"]["resourceVersion"] = "7"
    changes = patch(Known.of(document), replace(creating(WEB), nodes_ready=1, expire_date_time=None))
    assert changes == {"nodesReady": 1, "stranger": None}


def test_the_oldest_events_give_way() -> None:
    """A status fits its room, or has no event left."""
    status = creating(WEB)
    for number in range(50):
        status = phases.event(status, NOW + number, "Noise", f"{number} " + "x" * 400)
    small = fitted(status, 4000)
    assert len(msgspec.json.encode(status_document(small))) <= 4000
    assert small.events == status.events[-len(small.events) :]
    assert fitted(status, 10).events == ()


def test_a_later_version_is_told_from_an_earlier() -> None:
    """A watch may say after our own write what was true before it."""
    old, new = known(WEB, version="9"), known(WEB, version="10")
    assert new.newer_than(old)
    assert not old.newer_than(new)
    assert known(WEB, version="x").newer_than(new)
    assert replace(old, uid="another").newer_than(new)


def test_a_status_that_is_broken_counts_as_none() -> None:
    """And is replaced as a whole."""
    document = {**cache_document(), "status": {"phase": "Preparing", "images": 3}}
    document["metadata"]["resourceVersion"] = "7"
    broken = Known.of(document)
    assert broken.status == Status()
    made = planned(None, made=broken)
    assert made.status is not None
    merged = {**broken.written, **patch(broken, made.status)}
    assert parse_status({key: value for key, value in merged.items() if value is not None}) == made.status
