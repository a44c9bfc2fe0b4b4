"""The agent as the daemon runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from imagecached.kube.agent import AgentSettings, Facts
from imagecached.kube.agent.service import Membership
from tests.unit.kube.agent.conftest import PACE, World


async def test_a_kubeconfig_that_comes_later(world: World, tmp_path: Path) -> None:
    """A mistake of the operator keeps nothing else from working, and can be mended without a restart."""
    await world._stack.aclose()
    file = tmp_path / "later"
    requests: list[str] = []
    facts = Facts("linux/amd64", lambda: (0, 1), world._look)
    settings = AgentSettings("n1", start_seconds=0, facts_seconds=0.01)
    member = Membership(
        file, world.node.caches, facts, settings, lambda verb, code: requests.append(verb), print, PACE
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(member.run())
        await world.until(lambda: "does not exist" in (member.problem or ""))
        file.write_text("nonsense")
        await world.until(lambda: "cannot be used" in (member.problem or ""))
        file.write_bytes(world.kubeconfig.read_bytes())
        await world.until(lambda: member.problem is None and "watch" in requests)
        task.cancel()


async def test_a_defect_is_not_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error of ours ends the agent, and with it the daemon, instead of leaving a node deaf."""
    await world._stack.aclose()
    monkeypatch.setattr(world.node.caches, "declare", lambda *_: 1 / 0)
    facts = Facts("linux/amd64", lambda: (0, 1), world._look)
    settings = AgentSettings("n1", start_seconds=0)
    member = Membership(
        world.kubeconfig, world.node.caches, facts, settings, lambda *_: None, lambda _: None, PACE
    )
    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup) as raised:
            await member.run()
    assert raised.group_contains(ZeroDivisionError)
