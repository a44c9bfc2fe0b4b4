"""An emulated Kubernetes API server for tests: like the real one in all that we use, wrong only on demand.

    async with ApiServer() as server:
        server.install(Path("daemonset"))         # CRDs (served at once), roles, whatever is there
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
        ... talk to server.url ...
        server.partition(); server.heal(); server.drop_watches(); server.storage.compact()
        server.faults.too_many(matches=calls("get", "secrets"))
        server.traffic.requests["watch imagecaches"]

A webhook with a Service is found through ``server.admission.services[namespace, name, port] = (host, port)``.
``tests/contract/apiserver`` holds it to what a real server does; with ``KUBECONFIG`` it runs against one.
It has no controllers but garbage collection: pods are not scheduled, Deployments make no pods.
"""

from tests.support.apiserver.faults import calls
from tests.support.apiserver.rbac import User
from tests.support.apiserver.refusals import Refused
from tests.support.apiserver.server import ApiServer

__all__ = ["ApiServer", "Refused", "User", "calls"]
