"""The scenarios' own client, and that install and its undoing are each other's opposite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import installation
from tests.e2e.__main__ import main
from tests.e2e.cluster import Cluster, Kind, Refused, wait_for
from tests.e2e.installation import await_established
from tests.e2e.kustomize import build
from tests.e2e.options import Options, parse
from tests.e2e.report import Failed, Report
from tests.e2e.scenarios import MIDDLE, columns, schema
from tests.e2e.world import CACHE, FOLDER, NODE, POD, World, plain_template
from tests.support.apiserver import ApiServer, User
from tests.support.apiserver_thread import Served, served
from tests.support.rollouts import play_controllers

CONFIG_MAP = Kind("v1", "ConfigMap")


def _options(*arguments: str) -> Options:
    return parse(["--image", "registry.example/imagecached:1", "--patience", "5", *arguments], list(MIDDLE))


@pytest.fixture
def world(cluster: Cluster) -> World:
    """Of an installation from an image."""
    return World(_options(), cluster, Report())


def _define(world: World) -> None:
    for document in build(FOLDER / "crds"):
        world.cluster.apply(document)
        await_established(world, document["metadata"]["name"])


def test_objects_come_and_go(cluster: Cluster) -> None:
    """Create, read, change, list and delete; what is not there is None, and deleting it is no error."""
    metadata = {"name": "a", "namespace": "default"}
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"k": "1"},
    }
    cluster.create(document)
    cluster.apply({**document, "data": {"k": "2"}})
    cluster.merge(CONFIG_MAP, "a", {"data": {"l": "3"}}, "default")
    found = cluster.get(CONFIG_MAP, "a", "default")
    assert found is not None
    assert found["data"] == {"k": "2", "l": "3"}
    assert [each["metadata"]["name"] for each in cluster.list(CONFIG_MAP, "default")] == ["a"]
    assert ("configmaps", "default", "a") in cluster.identities()
    cluster.delete(CONFIG_MAP, "a", "default")
    cluster.delete(CONFIG_MAP, "a", "default")
    assert cluster.get(CONFIG_MAP, "a", "default") is None


def test_a_refusal_carries_what_the_server_said(cluster: Cluster) -> None:
    """Code and message, and a kind that the cluster does not know is told apart."""
    with pytest.raises(Refused, match="already exists") as caught:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    assert caught.value.code == 409
    assert not cluster.serves(CACHE)
    assert cluster.serves(POD)


def test_every_page_of_a_long_list_is_read(cluster: Cluster, api: Served) -> None:
    """More objects than one answer holds."""

    def fill(server: ApiServer) -> None:
        for number in range(501):
            metadata = {"name": f"m{number}", "namespace": "default"}
            server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    api.do(fill)
    assert len(cluster.list(CONFIG_MAP, "default")) == 501


def test_waiting_ends_with_a_reason(cluster: Cluster) -> None:
    """At the deadline the message says what was waited for and why it did not come."""
    with pytest.raises(Failed, match=r"the moon: not within 0 s; it is cloudy"):
        wait_for(lambda: None, "the moon", 0, lambda: "it is cloudy")


def test_a_server_that_is_away_is_asked_again(cluster: Cluster, api: Served) -> None:
    """429 and 5xx pass; what remains at the deadline is told."""
    api.do(lambda server: server.faults.break_down(times=2))
    assert wait_for(lambda: cluster.get(NODE, "n1"), "the node", 10) is not None
    api.do(lambda server: server.partition())
    with pytest.raises(Failed, match="cannot be reached"):
        wait_for(lambda: cluster.get(NODE, "n1"), "the node", 0)


def test_a_process_can_be_a_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kubeconfig made for it, a client has that account's rights and no others."""
    admin = {"admin": User("admin", ("system:masters",))}
    with served(ApiServer(rbac=True, tokens=admin)) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.server.kubeconfig(tmp_path / "admin", token="admin")))
        cluster = Cluster.from_environment()
        cluster.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "default"}}
        )
        file = tmp_path / "account"
        file.write_text(json.dumps(cluster.account_kubeconfig("default", "a", "n1")))
        monkeypatch.setenv("KUBECONFIG", str(file))
        account = Cluster.from_environment()
        with pytest.raises(Refused, match="system:serviceaccount:default:a"):
            account.list(POD)
        for each in (cluster, account):
            each.http.close()


def test_a_foreign_definition_stops_everything(world: World) -> None:
    """Where ECI's own ImageCache is installed nothing is changed."""
    [definition] = [
        each for each in build(FOLDER / "crds") if each["metadata"]["name"].startswith("imagecaches")
    ]
    definition["metadata"]["labels"] = {}
    world.cluster.apply(definition)
    before = world.cluster.identities()
    with pytest.raises(Failed, match="ECI's own ImageCache"):
        installation.preflight(world)
    assert world.cluster.identities() == before


def test_what_is_applied_can_be_taken_back(world: World, api: Served) -> None:
    """After restore no object and no label is left; again it does nothing."""
    installation.preflight(world)
    for document in installation.objects(world):
        world.cluster.apply(document)
    world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "imagecached-e2e"}})
    world.cluster.create(world.cache_example())
    world.cluster.create(world.pod_document(plain_template("nginx")))
    world.cluster.merge(NODE, "n1", {"metadata": {"labels": {"imagecached.dev/handler": "ready"}}})
    assert len(installation.leftovers(world)) > 20
    # Nothing makes pods of the DaemonSets here, so their absence is played.
    world.cluster.delete(Kind("apps/v1", "DaemonSet"), "imagecached", "imagecached-system")
    installation.restore(world)
    installation.restore(world)
    assert installation.leftovers(world) == []


def test_columns_and_schema_are_judged(world: World) -> None:
    """The two scenarios that need no daemon pass on our definitions, and a wrong column is found."""
    _define(world)
    columns(world)
    schema(world)
    assert world.report.failures == 0
    [definition, _] = build(FOLDER / "crds")
    shown = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    shown[0], shown[1] = shown[1], shown[0]
    world.cluster.apply(definition)
    with pytest.raises(Failed, match="NAME CACHEID AGE"):
        columns(world)


def test_images_are_replaced_and_nothing_else(world: World) -> None:
    """The users' manifests as they are, with the images of the flags."""
    changed = World(_options("--images", "r/a:1,r/b:1,r/c:1"), world.cluster, Report())
    theirs, ours = world.cache_example(), changed.cache_example()
    assert ours["spec"].pop("images") == ["r/a:1", "r/b:1"]
    assert theirs["spec"].pop("images") == list(world.options.images[:2])
    assert ours == theirs
    service = changed.knative_example("knative-explicit.yaml", "r/a:1", "imc-1")
    notes = service["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"k8s.aliyun.com/eci-image-snapshot-id": "imc-1"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --image REF or --node-process"),
        (["--image", "a", "--node-process"], "either --image REF or --node-process"),
        (["--image", "a", "--images", "x"], "two for the cache"),
        (["--image", "a", "--images", "x,x"], "different images"),
        (["--image", "a", "--only", "everything"], "no scenario everything"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the reason."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments, list(MIDDLE))
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_the_report_counts_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a check, whatever the text holds, and a summary that agrees with the failures."""
    report = Report("install")
    report.ok("all\nis well")
    report.fail("not")
    report.note("12 s")
    report.summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["ok   install        all is well", "FAIL install        not"]
    assert lines[3].startswith("1 ok, 1 FAIL, 0 skip in ")
    assert report.failures == 1


def test_the_script_says_why_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FAIL line and exit code 1, no traceback."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["--image", "a"]) == 1
    assert capsys.readouterr().out.startswith("FAIL cluster        no cluster: ")


def test_an_installation_from_an_image_is_taken_back_when_nothing_works(
    api: Served, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rollout is only played, so no cache ever becomes ready: that is told, and nothing of ours stays."""

    def prepare(server: ApiServer) -> None:
        play_controllers(server)
        server.put(
            {
                **server.get("nodes", "n1"),
                "metadata": {"name": "n1", "labels": {"imagecached.dev/handler": "ready"}},
            }
        )

    api.do(prepare)
    before = cluster.identities()
    assert main(["--image", "registry.example/imagecached:1", "--patience", "2"]) == 1
    said = capsys.readouterr().out
    assert "every node has a ready daemon" in said
    assert "every node is clean" in said
    [failed] = [line for line in said.splitlines() if line.startswith("FAIL")]
    assert failed.split()[1] == "phases"
    assert cluster.identities() == before
    assert api.do(lambda server: server.get("nodes", "n1"))["metadata"].get("labels", {}) == {}
