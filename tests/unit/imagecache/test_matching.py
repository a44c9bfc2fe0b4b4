"""Which cache a pod gets, and why: the documented order, its precedence table, digests and ties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import (
    Candidate,
    Candidates,
    Decision,
    ImageCache,
    Limits,
    PodImages,
    match,
    match_indexed,
    parse_object,
)
from tests.unit.imagecache.building import (
    GIB,
    NOW,
    automatic,
    cache,
    candidate,
    digest,
    edited,
    pod,
    status,
)

ECI = "k8s.aliyun.com/"


def asking(*images: str, **annotations: str) -> PodImages:
    """A pod with automatic matching; annotation names with ``_`` for ``-``."""
    found = {ECI + key.replace("_", "-"): value for key, value in annotations.items()}
    return PodImages.of(pod(*images, annotations={ECI + "eci-auto-imc": "true", **found}))


def reasons(decision: Decision) -> dict[str, str]:
    return {verdict.name: verdict.reason for verdict in decision.verdicts}


def chosen(decision: Decision) -> str | None:
    return decision.chosen.cache.name if decision.chosen else None


@pytest.mark.parametrize(
    ("image", "held", "outcome"),
    [
        ("nginx", "docker.io/library/nginx:latest", "full"),
        ("index.docker.io/library/nginx:latest", "nginx", "full"),
        ("nginx:1", "nginx:1", "full"),
        ("nginx:1", "nginx:2", "partial"),
        ("nginx", "nginx:1", "partial"),
        ("nginx:1", "quay.io/library/nginx:1", "none"),
        ("localhost:5000/nginx:1", "nginx:1", "none"),
        (f"nginx@{digest('index of nginx:1')}", "nginx:1", "full"),
        (f"nginx@{digest('manifest of nginx:1')}", "nginx:1", "full"),
        (f"nginx:other@{digest('index of nginx:1')}", "nginx:1", "full"),
        (f"nginx:1@{digest('another')}", "nginx:1", "partial"),
        (f"quay.io/nginx@{digest('index of nginx:1')}", "nginx:1", "none"),
        (f"nginx@{digest('x')}", f"nginx@{digest('x')}", "full"),
        ("nginx:1", f"nginx:1@{digest('x')}", "full"),
        ("nginx:1", f"nginx@{digest('x')}", "partial"),
    ],
)
def test_one_image(image: str, held: str, outcome: str) -> None:
    """Names are normalised; a digest decides where there is one, and must be what the cache resolved."""
    assert match(asking(image), [candidate(cache("c", held))]).outcome == outcome


def test_pinned() -> None:
    """A matched tag gets the digest that the cache holds; an image by digest stays as Knative wrote it."""
    by_digest = f"quay.io/a/b@{digest('index of quay.io/a/b:1')}"
    decision = match(asking("nginx", by_digest, "other"), [candidate(cache("c", "nginx", "quay.io/a/b:1"))])
    assert decision.degree == "partial 2/3"
    assert decision.pinned == {"nginx": f"docker.io/library/nginx:latest@{digest('index of nginx')}"}


def test_match_degree_comes_first() -> None:
    """More full matches beat everything; then more repositories that agree."""
    small, large = cache("small", "a:1", created=NOW + 9), cache("large", "a:1", "b:1", "x", "y")
    decision = match(asking("a:1", "b:1"), [candidate(small), candidate(large)])
    assert chosen(decision) == "large"
    assert reasons(decision) == {
        "small": "holds 1 of 2 images, but large holds 2",
        "large": "chosen: holds 2 of 2 images",
    }
    other = cache("other", "a:1", "b:2")
    decision = match(asking("a:1", "b:1"), [candidate(small), candidate(other)])
    assert chosen(decision) == "other"
    assert reasons(decision) == {
        "small": "holds 1 of 2 images, but other has other versions of 1",
        "other": "chosen: holds 1 of 2 images and other versions of 1",
    }


def test_what_rules_a_cache_out_is_told_beside_a_better_one() -> None:
    """Each verdict is about its own cache: why it cannot be, or in which point it is behind."""
    ready, coming = candidate(cache("ready", "a:1")), candidate(cache("coming", "a:1"), "Creating")
    decision = match(asking("a:1"), [coming, ready])
    assert reasons(decision) == {
        "ready": "chosen: holds 1 of 1 image",
        "coming": "is Creating (0%), and serves nothing yet",
    }


def test_closest_size_comes_second() -> None:
    """Of equally good matches the one with the least beside them."""
    tight, wide = cache("tight", "a:1", "x"), cache("wide", "a:1", "x", "y", created=NOW + 9)
    decision = match(asking("a:1"), [candidate(wide), candidate(tight)])
    assert chosen(decision) == "tight"
    assert reasons(decision)["wide"] == (
        "holds 1 of 1 image, but tight holds less beside them (1.0 GiB instead of 2.0 GiB)"
    )


def test_newest_comes_third_and_the_id_breaks_ties() -> None:
    """The answer never depends on the order in which caches are given."""
    old, new = cache("old", "a:1"), cache("new", "a:1", created=NOW + 1)
    decision = match(asking("a:1"), [candidate(old), candidate(new)])
    assert chosen(decision) == "new"
    assert reasons(decision)["old"] == "holds 1 of 1 image, but new is newer"
    twins = [candidate(cache("one", "a:1")), candidate(cache("two", "a:1"))]
    first = min(twins, key=lambda one: one.id)
    for order in (twins, twins[::-1]):
        decision = match(asking("a:1"), order)
        assert decision.chosen is first
        assert f"{first.cache.name} is just as good, and its id comes first" in " ".join(
            reasons(decision).values()
        )


def test_size_filter() -> None:
    """A cache larger than the pod's ephemeral storage is no candidate, until the pod declares more."""
    big = candidate(cache("big", "a:1", size_gib=40))
    decision = match(asking("a:1"), [big])
    assert decision.outcome == "none"
    assert reasons(decision)["big"] == (
        "is a cache of 40 GiB, more than the pod's 30 GiB of ephemeral storage "
        "(eci-extra-ephemeral-storage adds to it)"
    )
    assert match(asking("a:1", eci_extra_ephemeral_storage="10Gi"), [big]).outcome == "full"


@pytest.mark.parametrize(
    ("annotations", "outcome", "reason"),
    [
        ({}, "partial", "chosen: holds 1 of 2 images"),
        (
            {"imc_perfect_match": "true"},
            "none",
            "holds 1 of 2 images, and the pod wants all in one cache (imc-perfect-match)",
        ),
        (
            {"imc_match_count_request": "2"},
            "none",
            "holds 1 of 2 images, and the pod wants 2 (imc-match-count-request)",
        ),
        ({"imc_match_count_request": "1"}, "partial", "chosen: holds 1 of 2 images"),
        (
            {"imc_match_count_request": "3"},
            "none",
            "holds 1 of 2 images, and the pod wants 3 (imc-match-count-request)",
        ),
        (
            {"imc_perfect_match": "true", "imc_match_count_request": "1"},
            "none",
            "holds 1 of 2 images, and the pod wants all in one cache (imc-perfect-match)",
        ),
    ],
)
def test_perfect_match_and_match_count(annotations: dict[str, str], outcome: str, reason: str) -> None:
    """Conditions that are not met are no match; perfect match overrules the count."""
    decision = match(asking("a:1", "b:1", **annotations), [candidate(cache("c", "a:1"))])
    assert (decision.outcome, reasons(decision)) == (outcome, {"c": reason})


def test_perfect_match_overrules_a_count_that_no_pod_reaches() -> None:
    """With both set only perfect match is asked."""
    pod = asking("a:1", imc_perfect_match="true", imc_match_count_request="5")
    assert match(pod, [candidate(cache("c", "a:1"))]).outcome == "full"


@pytest.mark.parametrize(
    ("phase", "outcome", "reason"),
    [
        ("Pending", "none", "is Pending, and serves nothing yet"),
        ("Creating", "none", "is Creating (0%), and serves nothing yet"),
        ("Failed", "none", "is Failed (AccessDenied: registry refuses), and serves nothing yet"),
        ("Ready", "full", "chosen: holds 1 of 1 image"),
        ("Updating", "full", "chosen: holds 1 of 1 image"),
        ("UpdateFailed", "full", "chosen: holds 1 of 1 image"),
    ],
)
def test_only_what_serves_is_chosen(phase: str, outcome: str, reason: str) -> None:
    """A cache that is updated serves by its old generation."""
    decision = match(asking("a:1"), [candidate(cache("c", "a:1"), phase)])
    assert (decision.outcome, reasons(decision)) == (outcome, {"c": reason})


def test_an_update_matches_by_what_serves() -> None:
    """Images that are declared but not built yet do not match, those that still serve do."""
    newer = edited(cache("c", "a:2"))
    updating = Candidate.of(newer, status(cache("c", "a:1"), "Updating"))
    assert match(asking("a:1"), [updating]).outcome == "full"
    assert match(asking("a:2"), [updating]).outcome == "partial"


@pytest.mark.parametrize(
    ("phase", "outcome", "reason"),
    [
        ("Ready", "explicit", "the pod asks for c ({id}), which holds 1 of 2 images"),
        ("UpdateFailed", "explicit", "the pod asks for c ({id}), which holds 1 of 2 images"),
        ("Pending", "not-complete", "ImageCache c ({id}) is Pending, not Ready"),
        ("Creating", "not-complete", "ImageCache c ({id}) is Creating (0%), not Ready"),
        (
            "Failed",
            "not-complete",
            "ImageCache c ({id}) is Failed (AccessDenied: registry refuses), not Ready",
        ),
    ],
)
def test_explicit(phase: str, outcome: str, reason: str) -> None:
    """Exactly this cache or no pod; size and degree do not matter, automatic matching is overruled."""
    declared = cache("c", "a:1", size_gib=500)
    better = candidate(cache("better", "a:1", "b:1"))
    decision = match(asking("a:1", "b:1", eci_imc_id=declared.id), [better, candidate(declared, phase)])
    assert (decision.outcome, decision.reason) == (outcome, reason.format(id=declared.id))
    assert decision.refused == (outcome != "explicit")
    assert decision.create is None
    assert chosen(decision) == "c"


def test_explicit_by_name_and_unknown() -> None:
    """The object's name will do; what does not exist is refused by name."""
    there = [candidate(cache("c", "a:1"))]
    assert match(asking("z", eci_imc_id="c"), there).degree == "partial 0/1"
    decision = match(asking("a:1", eci_image_snapshot_id="imc-2ze5tm5gehgtiiga0000"), there)
    assert (decision.outcome, decision.refused) == ("not-found", True)
    assert decision.reason == "ImageCache imc-2ze5tm5gehgtiiga0000 does not exist"


def test_off() -> None:
    """A pod that asks for nothing gets nothing, and nothing is made for it."""
    decision = match(PodImages.of(pod("a:1")), [candidate(cache("c", "a:1"))])
    assert (decision.outcome, decision.create, decision.chosen) == ("off", None, None)


@pytest.mark.parametrize(
    ("held", "created"),
    [([], True), (["a:1"], True), (["a:1", "b:1"], False), (["x"], True), (["a:2"], True)],
)
def test_automatic_creation(held: list[str], created: bool) -> None:
    """On a miss and on a partial match, as ECI does, and not on a full one."""
    there = [candidate(cache("c", *held))] if held else []
    assert (match(asking("a:1", "b:1"), there).create is not None) == created


def test_the_automatic_cache() -> None:
    """Its images are the pod's, init containers included, and so are its size and its Secrets."""
    document = pod(
        "b",
        "a:1",
        annotations={
            ECI + "eci-auto-imc": "true",
            ECI + "eci-extra-ephemeral-storage": "20.5Gi",
            ECI + "insecure-registry": "evil.example.com",
        },
        initContainers=[{"image": "i:1"}],
        imagePullSecrets=[{"name": "regcred"}],
    )
    decision = match(PodImages.of(document), [])
    assert decision.create is not None
    created = decision.create.document()
    created["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-25T10:00:00Z"}
    made = parse_object(created)
    assert made.images == ("docker.io/library/a:1", "docker.io/library/b:latest", "docker.io/library/i:1")
    assert (made.size_gib, made.options.automatic, made.retention_days) == (51, True, None)
    assert made.name.startswith("auto-create-for-")
    assert [str(secret) for secret in made.pull_secrets] == ["default:regcred"]
    assert made.options.insecure == ()
    assert decision.reason == f"no cache fits the pod; {made.name} is made for the next pod"


def test_once_per_image_set() -> None:
    """The same images in another order want the same cache, which is not made again while it is there."""
    first, second = (
        match(asking("a:1", "b"), []).create,
        match(asking("docker.io/library/b:latest", "a:1"), []).create,
    )
    assert first is not None
    assert second is not None
    assert first.name == second.name
    for phase in ("Pending", "Creating", "Failed"):
        there = candidate(automatic(first.name, "a:1", "b"), phase)
        decision = match(asking("a:1", "b"), [there])
        assert decision.create is None
        assert f"{first.name} was made for these images and is {phase}" in decision.reason


def test_the_automatic_cache_of_the_set_is_named_first() -> None:
    """Of several reasons to make none, the one that is about this very image set is told."""
    made = match(asking("a:1"), []).create
    assert made is not None
    others = [candidate(cache(name, "a:1", "b:1"), "Creating") for name in ("aaa", "zzz")]
    own = candidate(automatic(made.name, "a:1"), "Creating")
    assert f"; {made.name} was made for these images" in match(asking("a:1"), [*others, own]).reason


def test_not_made_when_somebody_is_building_it() -> None:
    """A cache that will hold all the images is on its way: another one would be waste."""
    decision = match(asking("a:1"), [candidate(cache("c", "a:1", "b:1"), "Creating")])
    assert (decision.create, decision.reason) == (
        None,
        "no cache fits the pod; c will hold them all and is Creating (0%)",
    )
    updating = Candidate.of(edited(cache("c", "a:2")), status(cache("c", "a:1"), "Ready"))
    assert match(asking("a:2"), [updating]).create is None


@pytest.mark.parametrize(
    ("images", "limits", "reason"),
    [
        (["a"], Limits(automatic=False), "automatic caches are turned off"),
        (["a", "UP"], Limits(), "no cache is made, because an image of the pod is no valid reference"),
        (
            [f"a:{n}" for n in range(21)],
            Limits(),
            "no cache is made: 21 images are more than the 20 of one cache",
        ),
    ],
)
def test_not_made(images: list[str], limits: Limits, reason: str) -> None:
    """Where no cache can be made the reason is told."""
    decision = match(asking(*images), [], limits)
    assert (decision.create, decision.reason) == (None, f"no cache fits the pod; {reason}")


NAMES = ["a:1", "a:2", "b:1", "c:1", f"a@{digest('index of a:1')}", "quay.io/a:1"]
CACHES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
        st.sampled_from(["Pending", "Creating", "Ready", "Failed", "Updating", "UpdateFailed"]),
        st.integers(20, 40),
        st.integers(0, 2),
    ),
    max_size=6,
)


def build(shape: list[tuple[list[str], str, int, int]]) -> list[Candidate]:
    made: list[ImageCache] = [
        cache(f"c{number}", *images, size_gib=size, created=NOW + age)
        for number, (images, _, size, age) in enumerate(shape)
    ]
    return [candidate(one, phase, size=GIB) for one, (_, phase, _, _) in zip(made, shape, strict=True)]


@given(
    CACHES,
    st.lists(st.sampled_from([*NAMES, "UP"]), min_size=1, max_size=4, unique=True),
    st.sampled_from(
        [{}, {"imc_perfect_match": "true"}, {"imc_match_count_request": "2"}, {"eci_imc_id": "c1"}]
    ),
    st.randoms(use_true_random=False),
)
def test_any_choice(shape: list[Any], images: list[str], annotations: dict[str, str], random: Any) -> None:
    """The choice serves, meets the conditions, is beaten by none, and depends on neither order nor index."""
    pod, candidates = asking(*images, **annotations), build(shape)
    decision = match(pod, candidates)
    shuffled = list(candidates)
    random.shuffle(shuffled)
    again, indexed = match(pod, shuffled), match_indexed(pod, Candidates(shuffled))
    for other in (again, indexed):
        assert (other.outcome, other.chosen, other.full, other.pinned, other.reason) == (
            decision.outcome,
            decision.chosen,
            decision.full,
            decision.pinned,
            decision.reason,
        )
        assert other.create == decision.create
    if decision.chosen and not decision.refused:
        assert decision.chosen.status.usable
        assert decision.outcome != "full" or decision.full == decision.total
    if decision.outcome in ("full", "partial", "none"):
        assert len(decision.verdicts) == len(candidates)
        assert all(verdict.reason for verdict in decision.verdicts)
        fitting = [verdict.full for verdict in decision.verdicts if verdict.fits]
        assert decision.full == max(fitting, default=0)


def test_a_candidate_keeps_its_digests_apart_by_repository() -> None:
    """The same digest in another repository is another image: other people may be allowed to read it."""
    shared = replace(status(cache("c", "a:1"), "Ready"))
    there = Candidate.of(cache("c", "a:1"), shared)
    assert match(asking(f"b@{digest('index of a:1')}"), [there]).outcome == "none"
