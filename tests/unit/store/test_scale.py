"""A thousand images and ten thousand layers: reads stay flat, opening takes well below a second."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, schema, snapshots
from imagecached.store.records import Layer
from imagecached.store.snapshots import Fresh
from imagecached.store.state import State
from tests.unit.store.building import ROOMY, opened

IMAGES = 1000
LAYERS_EACH = 10
DOCUMENT_BYTES = 4000


def diff_ids(number: int) -> list[Digest]:
    return [Digest.of(b"%d/%d" % (number, depth)) for depth in range(LAYERS_EACH)]


def fill(state: State) -> None:
    """Rows as pulls would have written them, and an empty file for each layer."""
    stacks = [diff_ids(number) for number in range(IMAGES)]
    for shard in {state.layout.layer(one).parent for stack in stacks for one in stack}:
        shard.mkdir(parents=True)
    for stack in stacks:
        for diff_id in stack:
            state.layout.layer(diff_id).touch()
    state.db.transact(lambda connection: _insert(state, connection, stacks))
    state.refresh()


def _insert(state: State, connection: sqlite3.Connection, stacks: list[list[Digest]]) -> None:
    for stack in stacks:
        _insert_one(state, connection, stack)


def _insert_one(state: State, connection: sqlite3.Connection, stack: list[Digest]) -> None:
    layers.record(
        connection,
        [Layer(diff_id, state.layout.layer(diff_id), 1, 2, 4096, 3, 1.0, 1.0) for diff_id in stack],
    )
    parent = None
    for depth, chain_id in enumerate(chain_ids(stack)):
        snapshots.record(connection, [Fresh(chain_id, parent, stack[depth], 4096 * depth)], 1.0)
        parent = chain_id
    documents = [
        bytes(f"{kind} {stack[0]}".ljust(DOCUMENT_BYTES), "ascii") for kind in ("manifest", "config")
    ]
    keys = [str(Digest.of(document)) for document in documents]
    connection.executemany("INSERT INTO documents VALUES (?, ?)", zip(keys, documents, strict=True))
    name = f"docker.io/library/{stack[0].hex[:8]}:latest"
    facts = (name, "type", keys[0], 1, keys[0], "linux/amd64", " ".join(stack), str(parent), *keys, None, 1.0)
    schema.insert(connection, "images", facts, 1.0)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a big store, closed."""
    root = tmp_path_factory.mktemp("scale") / "root"
    with opened(root) as (state, _):
        fill(state)
    return root


def median(call: Callable[[Digest], object], among: list[Digest]) -> float:
    """Seconds per call, the median of many on random arguments."""
    taken = []
    for argument in random.Random(1).choices(among, k=500):
        began = time.perf_counter()
        call(argument)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def test_opening_takes_less_than_a_second(full: Path) -> None:
    """Checks of the database and one scan of the folders included; a quarter of it is expected."""
    began = time.process_time()
    with opened(full, ROOMY) as (state, recovery):
        taken = time.process_time() - began
        assert recovery == type(recovery)()
        assert len(layers.every(state)) == IMAGES * LAYERS_EACH
    assert taken < 1


def test_reads_stay_flat(full: Path) -> None:
    """Each below 100 µs; the bound here leaves room for a busy machine."""
    with opened(full) as (state, _):
        stacks = [diff_ids(number) for number in range(IMAGES)]
        lowest = [stack[0] for stack in stacks]
        tops = [chain_ids(stack)[-1] for stack in stacks]
        taken = {
            "layer": median(lambda diff_id: layers.find(state, diff_id), lowest),
            "snapshot": median(lambda chain_id: snapshots.find(state, chain_id), tops),
            "chain": median(lambda chain_id: snapshots.chain(state, chain_id), tops),
            "image": median(
                lambda one: images.find(state, f"docker.io/library/{one.hex[:8]}:latest"), lowest
            ),
            "used": median(lambda _: state.budget.shortage(), lowest),
        }
        print({name: f"{seconds * 1e6:.0f} µs" for name, seconds in taken.items()})
        assert max(taken.values()) < 500e-6


def test_gc_plans_in_the_blink_of_an_eye(full: Path) -> None:
    """It keeps other changes waiting while it decides."""
    with opened(full) as (state, _):
        began = time.process_time()
        report = collect.collect(state, dry_run=True)
        assert time.process_time() - began < 1
        assert report.layers == ()
