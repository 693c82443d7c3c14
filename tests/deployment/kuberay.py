"""The fields of KubeRay's resources, and a check of a manifest against them.

The names, types and defaults are those of KubeRay's API reference for ray.io/v1 (docs/reference/api.md of
ray-project/kuberay), of which the CRDs are generated. Where the CRD repeats Kubernetes' own types, such as pod
templates, the check uses the schemas of Kubernetes, which the package kubernetes-validate brings. As the API server
does with strict field validation, it refuses unknown fields.
"""

from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

KUBERNETES = "1.33"
STRING, BOOLEAN, INTEGER, NUMBER = ({"type": kind} for kind in ("string", "boolean", "integer", "number"))
STRINGS = {"type": "object", "additionalProperties": STRING}
COUNT = {"type": "integer", "minimum": 0}
ANY = {"type": "object"}  # a type of Kubernetes, which `pod_templates` and `check` look at


def fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


AUTOSCALER = fields(
    resources=ANY, image=STRING, imagePullPolicy=STRING, securityContext=ANY, idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, version={"enum": ["v1", "v2"]},
    env={"type": "array"}, envFrom={"type": "array"}, volumeMounts={"type": "array"},
)  # fmt: skip
HEAD = fields(
    ("template",), template=ANY, headService=ANY, enableIngress=BOOLEAN, rayStartParams=STRINGS, serviceType=STRING
)
WORKERS = fields(
    ("groupName", "template"), suspend=BOOLEAN, groupName=STRING, replicas=COUNT, minReplicas=COUNT,
    maxReplicas=COUNT, idleTimeoutSeconds=COUNT, rayStartParams=STRINGS, template=ANY,
    scaleStrategy=fields(workersToDelete={"type": "array", "items": STRING}), numOfHosts=COUNT,
)  # fmt: skip
CLUSTER = fields(
    ("headGroupSpec",), suspend=BOOLEAN, managedBy=STRING, autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=STRINGS, enableInTreeAutoscaling=BOOLEAN, gcsFaultToleranceOptions=ANY,
    headGroupSpec=HEAD, rayVersion=STRING, workerGroupSpecs={"type": "array", "items": WORKERS},
)  # fmt: skip
JOB = fields(
    activeDeadlineSeconds={"type": "integer", "minimum": 1}, backoffLimit=COUNT, rayClusterSpec=CLUSTER,
    submitterPodTemplate=ANY, metadata=STRINGS, clusterSelector=STRINGS, submitterConfig=fields(backoffLimit=COUNT),
    managedBy=STRING, deletionStrategy=ANY, entrypoint=STRING, runtimeEnvYAML=STRING, jobId=STRING,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]}, entrypointResources=STRING,
    entrypointNumCpus=NUMBER, entrypointNumGpus=NUMBER, ttlSecondsAfterFinished=COUNT,
    shutdownAfterJobFinishes=BOOLEAN, suspend=BOOLEAN, schedule=STRING,
)  # fmt: skip
SERVICE = fields(
    serveService=ANY, upgradeStrategy=fields(type={"enum": ["NewCluster", "None"]}), serveConfigV2=STRING,
    rayClusterConfig=CLUSTER, excludeHeadPodFromServeSvc=BOOLEAN,
)  # fmt: skip
CLUSTER_KEYS = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
SPECS = {"RayJob": JOB, "RayService": SERVICE}


def check(manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with a RayJob or RayService; empty when the API server would take it."""
    kind = manifest["kind"]
    whole = fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"}, kind={"const": kind}, metadata=ANY, spec=SPECS[kind],
    )  # fmt: skip
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(manifest)]
    for where, pod in pod_templates(manifest):
        try:
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            errors.append(f"{where}.{'.'.join(map(str, error.path))}: {error.message}")
    return errors


def pod_templates(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the pods of a manifest's cluster, each with its place: those of the head, then of the worker groups."""
    cluster = manifest["spec"][CLUSTER_KEYS[manifest["kind"]]]
    groups = [("headGroupSpec", cluster["headGroupSpec"])]
    groups += [(f"workerGroupSpecs[{group['groupName']}]", group) for group in cluster["workerGroupSpecs"]]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    return [(name, {**pod, **group["template"]}) for name, group in groups]
