"""What the controllers of a real cluster do: delete what lost its owners, and namespaces that are empty."""

from __future__ import annotations

from tests.support.apiserver import rules
from tests.support.apiserver.requests import Paths
from tests.support.apiserver.resources import Resource
from tests.support.apiserver.storage import Document, Storage, Stored


class Collector:
    """Background garbage collection, done at once."""

    def __init__(self, storage: Storage, paths: Paths) -> None:
        self._storage = storage
        self._paths = paths

    def collect(self) -> None:
        """Until nothing changes: dependents without a living owner go, foreground deletions end."""
        while self._pass():
            pass

    def _pass(self) -> bool:
        living = self._living()
        found = False
        for key, shelf in self._storage.shelves():
            resource = self._paths.find(*key)
            for stored in list(shelf.objects.values()) if resource else ():
                assert resource is not None
                owners = stored.meta.get("ownerReferences", ())
                if owners and not any(owner["uid"] in living for owner in owners):
                    found |= self._remove(resource, stored)
                elif "foregroundDeletion" in stored.meta.get("finalizers", ()):
                    found |= self._end_foreground(resource, stored)
                elif key == ("", "namespaces") and stored.meta.get("deletionTimestamp"):
                    found |= self.empty(stored.meta["name"])
        return found

    def _living(self) -> set[str]:
        return {
            stored.meta["uid"]
            for _, shelf in self._storage.shelves()
            for stored in shelf.objects.values()
            if "foregroundDeletion" not in stored.meta.get("finalizers", ())
        }

    def _remove(self, resource: Resource, stored: Stored) -> bool:
        if not stored.meta.get("finalizers"):
            self._storage.remove(resource, stored)
            return True
        if stored.meta.get("deletionTimestamp"):
            return False
        self._rewrite(resource, stored, {"deletionTimestamp": rules.now(), "deletionGracePeriodSeconds": 0})
        return True

    def _end_foreground(self, resource: Resource, stored: Stored) -> bool:
        dependents = any(
            owner["uid"] == stored.meta["uid"]
            for _, shelf in self._storage.shelves()
            for each in shelf.objects.values()
            for owner in each.meta.get("ownerReferences", ())
        )
        if dependents:
            return False
        left = [each for each in stored.meta["finalizers"] if each != "foregroundDeletion"]
        if left:
            self._rewrite(resource, stored, {"finalizers": left})
        else:
            self._storage.remove(resource, stored)
        return True

    def empty(self, namespace: str) -> bool:
        """Delete what a dying namespace holds; the test's own finalizers hold it up, as they would."""
        found = False
        for key, shelf in self._storage.shelves():
            resource = self._paths.find(*key)
            for place, stored in list(shelf.objects.items()):
                if resource is not None and place[0] == namespace:
                    found |= self._remove(resource, stored)
        return found

    def _rewrite(self, resource: Resource, stored: Stored, changes: Document) -> None:
        document = {**stored.document, "metadata": {**stored.meta, **changes}}
        self._storage.write(resource, document, previous=stored)
