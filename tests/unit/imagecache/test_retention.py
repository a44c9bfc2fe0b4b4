"""When caches go, and which of too many go first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagecached.imagecache import ImageCache, Kept, Options, Quota, Status, due, expiry, phases, surplus
from imagecached.imagecache.retention import DAY
from tests.unit.imagecache.building import NOW, automatic, cache, status

LATER = NOW + 2 * DAY


def used(declared: ImageCache, when: float) -> Status:
    return phases.matched(declared, status(declared, "Ready"), when)


@pytest.mark.parametrize(
    ("declared", "state", "end", "cause"),
    [
        (cache(), status(cache(), "Ready"), None, None),
        (cache(), used(cache(), LATER), None, None),
        (cache(retention_days=7), status(cache(), "Ready"), NOW + 7 * DAY, "Expired"),
        (cache(), status(cache(), "Failed", LATER), LATER + DAY, "Failed"),
        (cache(), status(cache(), "UpdateFailed", LATER), None, None),
        (cache(retention_days=1), status(cache(), "Failed", LATER), NOW + DAY, "Expired"),
        (automatic(), status(automatic(), "Ready"), NOW + 7 * DAY, "Unused"),
        (automatic(), used(automatic(), LATER), LATER + 30 * DAY, "Idle"),
        (automatic(), status(automatic(), "Failed", NOW), NOW + DAY, "Failed"),
        (automatic(retention_days=3), used(automatic(), LATER), NOW + 3 * DAY, "Expired"),
    ],
)
def test_when_it_goes(declared: ImageCache, state: Status, end: float | None, cause: str | None) -> None:
    """Retention from creation, a day after a failure, 7 or 30 days if automatic; the earliest counts."""
    assert expiry(declared, state) == end
    if end is None:
        assert due(declared, state, NOW + 10_000 * DAY) is None
    else:
        assert due(declared, state, end - 1) is None
        removal = due(declared, state, end)
        assert removal is not None
        assert (removal.cause, removal.cache) == (cause, declared)


def test_a_failure_is_kept_from_when_it_failed() -> None:
    """Looking at a failed cache again does not give it another day."""
    failed = status(cache(), "Failed", LATER)
    assert failed.expire_date_time == LATER + DAY
    seen = phases.looked_at(cache(generation=5), failed, LATER + 3600)
    assert seen.expire_date_time == LATER + DAY


def test_a_new_build_saves_a_failed_cache() -> None:
    """An edit begins anew, and what was said of the failure is gone."""
    again = phases.begin(cache("c", "nginx:2"), status(cache(), "Failed"), LATER)
    assert (again.phase, again.expire_date_time, again.reason) == ("Pending", None, "")


def test_automatic_caches_above_the_quota() -> None:
    """The longest unused go, so many that those that are coming fit; a manual cache never goes for them."""
    kept = [Kept(automatic(f"auto-{n}"), used(automatic(f"auto-{n}"), NOW + n)) for n in range(5)]
    kept.append(Kept(cache("manual"), status(cache(), "Ready")))
    assert surplus(kept, Quota(automatic=5)) == []
    assert [one.cache.name for one in surplus(kept, Quota(automatic=5), coming=1)] == ["auto-0"]
    assert [one.cache.name for one in surplus(kept, Quota(automatic=3))] == ["auto-0", "auto-1"]
    assert (
        surplus(kept, Quota(automatic=3))[0].message == "the longest unused of more than 3 automatic caches"
    )


def test_never_used_counts_from_its_making() -> None:
    """A cache that no pod was given yet is as old as itself."""
    old, new = automatic("old", created=NOW - 100), automatic("new")
    kept = [Kept(new, status(new, "Ready")), Kept(old, status(old, "Ready"))]
    assert [one.cache.name for one in surplus(kept, Quota(automatic=1))] == ["old"]


def test_manual_caches_above_the_quota() -> None:
    """Of manual caches only those go that asked for it, even if that is not enough."""
    lru = replace(cache("lru"), options=Options(lru=True))
    kept = [Kept(one, status(one, "Ready")) for one in (cache("a"), cache("b"), lru)]
    assert [one.cache.name for one in surplus(kept, Quota(manual=2))] == ["lru"]
    assert [one.cache.name for one in surplus(kept, Quota(manual=1))] == ["lru"]
    assert surplus(kept, Quota(manual=3)) == []
