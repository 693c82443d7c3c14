"""The manifests for KubeRay: fields that the API server takes, and what training and serving need of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import __version__ as ray_version
from ray.serve.schema import ServeDeploySchema

from pbe.serving.service.ray_serve import RayServeSettings
from tests.deployment.kuberay import CLUSTER_KEYS, check, pod_templates

ROOT = Path(__file__).parents[2]
FILES = {"RayJob": "deploy/kuberay/train.yaml", "RayService": "deploy/kuberay/serve.yaml"}
kinds = pytest.mark.parametrize("kind", FILES)


def load(kind: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((ROOT / FILES[kind]).read_text())
    assert manifest["kind"] == kind
    return manifest


@kinds
def test_the_api_server_takes_every_field(kind: str) -> None:
    assert check(load(kind)) == []


@kinds
def test_a_misspelt_field_is_found(kind: str) -> None:
    manifest = load(kind)
    cluster = manifest["spec"][CLUSTER_KEYS[kind]]
    cluster["workerGroupSpecs"][0]["minReplica"] = 1
    cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    found = check(manifest)
    assert len(found) == 2
    assert "'minReplica' was unexpected" in found[0]
    assert "volumeMount" in found[1]


@kinds
def test_the_cluster_runs_the_project_s_ray_and_mounts_what_it_declares(kind: str) -> None:
    manifest = load(kind)
    assert manifest["spec"][CLUSTER_KEYS[kind]]["rayVersion"] == ray_version
    for _, pod in pod_templates(manifest):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_a_job_that_loses_its_head_starts_again() -> None:
    spec = load("RayJob")["spec"]
    assert spec["backoffLimit"] > 0  # each attempt is a new cluster; 0, the default, gives up
    assert spec["shutdownAfterJobFinishes"]
    assert "flows.pipeline" in spec["entrypoint"]


def test_the_service_s_configuration_is_ray_serve_s() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(load("RayService")["spec"]["serveConfigV2"]))
    (application,) = config.applications
    settings = RayServeSettings.model_validate(application.args)
    pods = dict(pod_templates(load("RayService")))
    gpus = pods["workerGroupSpecs[gpus]"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    groups = load("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert settings.num_replicas * settings.num_gpus <= groups[0]["replicas"] * int(gpus)
    assert settings.service.tokens_file  # without tokens, a replica answers its own machine only
    assert config.http_options.request_timeout_s > settings.service.edit_timeout_s
