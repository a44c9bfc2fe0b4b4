"""Random stacks of layers and damaged archives give containerd's trees.

A stack that does not is cut down to its smallest form.

Environment: ``IMAGECACHED_EXAMPLES``, how many of each; ``IMAGECACHED_SEED``, to run the same ones again;
``IMAGECACHED_CONTAINERD``, see :mod:`tests.support.reference`.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.awkward import Case
from tests.support.awkward.verdicts import DELIBERATE
from tests.support.listing import differences
from tests.support.mutations import mutated
from tests.support.ours import Ours
from tests.support.reference import Reference, Refusal, serve_reference
from tests.support.stacks import Stack, random_stack

pytestmark = [pytest.mark.root, pytest.mark.containerd]

_EXAMPLES = int(os.environ.get("IMAGECACHED_EXAMPLES", "200"))
_SEED = os.environ.get("IMAGECACHED_SEED") or str(random.randrange(10**9))
_BATCH = 100
_PATIENT = pytest.mark.timeout(0 if _EXAMPLES > 1000 else 300)


class Judge:
    """Says what is different about images, on both sides."""

    def __init__(self, reference: Reference, ours: Ours) -> None:
        self._reference, self._ours = reference, ours
        self._numbers = itertools.count()
        self.trees = 0

    async def faults(self, stacks: list[Stack]) -> list[list[str]]:
        """For each stack what differs; a stack that containerd refuses may have any tree, or none."""
        found = await self.compared([stack.case(f"random-{next(self._numbers)}") for stack in stacks])
        refused = "only we refuse"
        return [
            [] if stack.late_opaque and fault and fault[0].startswith(refused) else fault
            for stack, fault in zip(stacks, found, strict=True)
        ]

    async def compared(self, cases: list[Case]) -> list[list[str]]:
        """What differs about each image."""
        self._reference.load(cases)
        found = [await self._fault(case) for case in cases]
        self._reference.forget(cases)
        self._ours.close()
        return found

    async def _fault(self, case: Case) -> list[str]:
        theirs, mine = self._reference.tree(case), await self._ours.tree(case)
        if isinstance(theirs, Refusal):
            return []
        if isinstance(mine, Refusal):
            return (
                [] if any(words in mine.words for words in DELIBERATE) else [f"only we refuse: {mine.words}"]
            )
        self.trees += 1
        return differences(mine, theirs, unpacked_after=self._reference.unpacked_after)

    async def smallest(self, stack: Stack) -> tuple[Stack, list[str]]:
        """The stack without all that the difference does not need, and what still differs."""
        while True:
            candidates = list(stack.smaller())
            faults = await self.faults(candidates)
            faulty = next((one for one, fault in zip(candidates, faults, strict=True) if fault), None)
            if faulty is None:
                return stack, (await self.faults([stack]))[0]
            stack = faulty


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """A judge with a containerd of its own."""
    ours = Ours(tmp_path)
    with serve_reference() as reference:
        yield Judge(reference, ours)
    ours.close()


def _batches() -> Iterator[list[str]]:
    """The seeds of this run's examples."""
    print(f"IMAGECACHED_SEED={_SEED} IMAGECACHED_EXAMPLES={_EXAMPLES}")
    for start in range(0, _EXAMPLES, _BATCH):
        yield [f"{_SEED}-{number}" for number in range(start, min(start + _BATCH, _EXAMPLES))]


@_PATIENT
async def test_random_stacks_are_the_same(judge: Judge) -> None:
    """No difference in any of the stacks of this run's seed."""
    for seeds in _batches():
        stacks = [random_stack(seed) for seed in seeds]
        for stack, fault in zip(stacks, await judge.faults(stacks), strict=True):
            if fault:
                smallest, rest = await judge.smallest(stack)
                pytest.fail(f"seed {_SEED}\n{smallest}\n" + "\n".join(rest or fault))
    assert judge.trees > _EXAMPLES // 5, "too few stacks were possible to say much"


@_PATIENT
async def test_damaged_archives_are_the_same(judge: Judge) -> None:
    """What containerd still reads of a damaged archive we read alike."""
    for seeds in _batches():
        cases = [mutated(seed) for seed in seeds]
        for case, fault in zip(cases, await judge.compared(cases), strict=True):
            assert fault == [], case.name
    assert judge.trees > _EXAMPLES // 10, "too few archives were readable to say much"
