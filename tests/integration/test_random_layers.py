"""Random stacks of layers give containerd's trees; what differs is cut down to its smallest form.

Environment: ``IMAGECACHED_EXAMPLES``, how many stacks; ``IMAGECACHED_SEED``, to run the same ones again;
``IMAGECACHED_CONTAINERD``, see :mod:`tests.support.reference`.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listing import differences
from tests.support.ours import Ours
from tests.support.reference import Reference, Refusal, serve_reference
from tests.support.stacks import Stack, random_stack

pytestmark = [pytest.mark.root, pytest.mark.containerd]

_EXAMPLES = int(os.environ.get("IMAGECACHED_EXAMPLES", "400"))
_SEED = os.environ.get("IMAGECACHED_SEED") or str(random.randrange(10**9))
_BATCH = 100


class Judge:
    """Says what is different about a stack, on both sides."""

    def __init__(self, reference: Reference, ours: Ours) -> None:
        self._reference, self._ours = reference, ours
        self._numbers = itertools.count()
        self.trees = 0

    async def faults(self, stacks: list[Stack]) -> list[list[str]]:
        """For each stack what differs; a stack that containerd refuses may have any tree, or none."""
        cases = [stack.case(f"random-{next(self._numbers)}") for stack in stacks]
        self._reference.load(cases)
        found: list[list[str]] = []
        for one in cases:
            theirs, mine = self._reference.tree(one), await self._ours.tree(one)
            if isinstance(theirs, Refusal):
                found.append([])
            elif isinstance(mine, Refusal):
                found.append([f"only we refuse: {mine.words}"])
            else:
                self.trees += 1
                found.append(differences(mine, theirs, unpacked_after=self._reference.unpacked_after))
        self._reference.forget(cases)
        self._ours.close()
        return found

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


@pytest.mark.timeout(0 if _EXAMPLES > 1000 else 300)
async def test_random_stacks_are_the_same(judge: Judge) -> None:
    """No difference in any of the stacks of this run's seed."""
    print(f"IMAGECACHED_SEED={_SEED} IMAGECACHED_EXAMPLES={_EXAMPLES}")
    for start in range(0, _EXAMPLES, _BATCH):
        seeds = range(start, min(start + _BATCH, _EXAMPLES))
        stacks = [random_stack(f"{_SEED}-{number}") for number in seeds]
        for stack, fault in zip(stacks, await judge.faults(stacks), strict=True):
            if fault:
                smallest, rest = await judge.smallest(stack)
                pytest.fail(f"seed {_SEED}\n{smallest}\n" + "\n".join(rest or fault))
    assert judge.trees > _EXAMPLES // 5, "too few stacks were possible to say much"
