"""The manifests against KubeRay's own CRDs.

kuberay-1.7.0.json.gz: `openAPIV3Schema` of version v1 of RayService and RayJob in ray-project/kuberay, tag v1.7.0
(59d663aeec13760646da3db9c1cf8cfe883e30b7), helm-chart/kuberay-operator/crds, Apache-2.0, less its descriptions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from ray.serve.schema import ServeDeploySchema

from lsi_ray.config import parse_config
from lsi_ray.service.deploy import parse_deploy
from lsi_ray.service.front_door import guard

FOLDER = Path(__file__).parents[3] / "deploy/kuberay"
GUARD = f"{guard.__module__}.{guard.__name__}"
Manifest = dict[str, Any]


def load(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def closed(node: Any) -> Any:
    """The API server drops fields that a CRD does not know; here they are errors."""
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: closed(value) for key, value in node.items() if key != "format"}
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    packed = (Path(__file__).parent / "kuberay-1.7.0.json.gz").read_bytes()
    return {kind: closed(schema) for kind, schema in json.loads(gzip.decompress(packed)).items()}


def errors(manifest: Manifest, schemas: dict[str, Any]) -> list[str]:
    schema = schemas[manifest["kind"]]
    schema["properties"]["metadata"] = {"type": "object"}
    found = Draft4Validator(schema).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.fixture
def service() -> Manifest:
    return load("service.yaml")[0]


@pytest.fixture
def job() -> Manifest:
    return load("job.yaml")[0]


def test_the_crds_take_them(service: Manifest, job: Manifest, schemas: dict[str, Any]) -> None:
    assert errors(service, schemas) == []
    assert errors(job, schemas) == []


def test_the_crds_refuse_what_they_do_not_know(service: Manifest, schemas: dict[str, Any]) -> None:
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 3
    service["spec"]["rayClusterConfig"]["authOptions"]["mode"] = "maybe"
    found = errors(service, schemas)
    assert any("maxReplica" in one for one in found)
    assert any("maybe" in one for one in found)


def test_serve_takes_its_config(service: Manifest) -> None:
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    assert application["import_path"] == "lsi_ray.service.ingress:app"
    assert application["args"]["work_dir"] == "/var/lib/lsi"


def test_the_service_takes_its_deployment() -> None:
    (files,) = (one["data"] for one in load("service.yaml") if one["kind"] == "ConfigMap")
    deploy = parse_deploy(yaml.safe_load(files["deploy.yaml"]), source="deploy.yaml")
    for model in deploy.models:
        parse_config(yaml.safe_load(files[str(model.config)]), source=str(model.config))
    assert deploy.gpus.most == sum(
        group["maxReplicas"] for group in groups(load("service.yaml")[0]) if "gpu" in group["groupName"]
    )


def test_a_second_cluster_never_opens_the_same_work_dir(service: Manifest) -> None:
    assert service["spec"]["upgradeStrategy"]["type"] == "None"


def test_every_container_is_guarded_and_nobody(service: Manifest, job: Manifest) -> None:
    for spec in (service["spec"]["rayClusterConfig"], job["spec"]["rayClusterSpec"]):
        assert spec["authOptions"]["mode"] == "token"
        assert spec["enableInTreeAutoscaling"]
        for pod in pods(spec):
            assert pod["securityContext"]["runAsNonRoot"]
            for container in pod["containers"]:
                env = {one["name"]: one.get("value") for one in container["env"]}
                assert env["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == GUARD
                assert not container["securityContext"]["allowPrivilegeEscalation"]
                assert {mount["name"] for mount in container["volumeMounts"]} >= {"work", "deploy"}
                assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys()


def test_gpus_come_from_zero_on_demand_and_on_spot(service: Manifest) -> None:
    gpus = [group for group in groups(service) if "gpu" in group["groupName"]]
    assert len(gpus) == 2
    for group in gpus:
        assert group["minReplicas"] == 0
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"]


def test_secrets_are_named_and_not_written_down() -> None:
    for path in sorted(FOLDER.glob("*.yaml")):
        manifests = list(yaml.safe_load_all(path.read_text()))
        assert "Secret" not in {one["kind"] for one in manifests}
        for value in values(manifests):
            assert "X-Amz" not in value
    (job,) = load("job.yaml")
    assert "env:LSI_INPUT" in job["spec"]["entrypoint"]


def test_only_the_gateway_reaches_the_port_and_nobody_rays(service: Manifest) -> None:  # noqa: ARG001
    (policy,) = (one for one in load("service.yaml") if one["kind"] == "NetworkPolicy")
    outside = policy["spec"]["ingress"][1:]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert all(rule["ports"] and rule["from"] for rule in outside)
    assert {port["port"] for rule in outside for port in rule["ports"]} == {8000, 8080, 8265}


def groups(service: Manifest) -> list[Manifest]:
    found: list[Manifest] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return found


def pods(spec: Manifest) -> list[Manifest]:
    return [group["template"]["spec"] for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]


def values(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)
    elif isinstance(node, str):
        yield node
