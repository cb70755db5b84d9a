"""A command as a RayJob of KubeRay: the manifest, and its way to the cluster.

KubeRay makes a Ray for the job, gives it a token of its own (`authOptions`), runs the command, and takes it down. What
is secret is named, never written: the manifest holds references to Secrets that lie in the namespace already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.launch.command import has_password, is_secret
from infra.launch.job import entrypoint

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?")  # KubeRay appends to it
_TOLERATION = re.compile(r"([\w./-]+)(?:=([\w.-]+))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?")
KEPT_S = 600  # that a finished job can still be looked at


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What is asked of Kubernetes.

    Attributes:
        image: With vamoh in it (see infra/docker).
        nodes: Pods that work.
        gpus, cpus, memory: Of each of them.
        claim: A PersistentVolumeClaim that all pods can write to; None for none.
        mount: Where it is seen; runs/ and mlruns/ go there.
        secrets: Names of Secrets whose keys become variables of the environment.
        variables: NAME=VALUE of the environment, none of them secret.
        tolerations: KEY[=VALUE][:EFFECT].
        retries: Attempts after the first; each goes on where the last one stopped.
    """

    image: str
    nodes: int = 1
    gpus: int = 0
    cpus: int = 4
    memory: str = "16Gi"
    claim: str | None = None
    mount: str = "/shared"
    secrets: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    retries: int = 3

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+(\.\d+)?(Mi|Gi|Ti|M|G|T)?", self.memory):
            raise ValueError(f"--memory-per-node expects Kubernetes' form, e.g. 16Gi, got {self.memory!r}")
        for text in self.variables:
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"--env expects NAME=VALUE, got {text!r}")
            if is_secret(name) or has_password(value):
                raise ValueError(f"{name} is secret: keep it in a Secret of the namespace, and name that with --secret")
        for text in self.tolerations:
            if not _TOLERATION.fullmatch(text):
                raise ValueError(f"--toleration expects KEY[=VALUE][:EFFECT], e.g. spot=true:NoSchedule, got {text!r}")


def manifest(command: Sequence[str], pods: Pods, *, name: str, namespace: str, ray_version: str) -> dict[str, Any]:
    """The RayJob.

    Args:
        command: Of vamoh; named, so that another attempt goes on with its run.
        pods: What it runs in.
        name: The job's.
        namespace: Where it is created.
        ray_version: Of the image.

    Raises:
        ValueError: If Kubernetes would not take the name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"--name expects at most 47 lower-case letters, digits and '-', got {name!r}")
    head = _template("head", pods, {"cpu": "2", "memory": "8Gi"})
    work: dict[str, str] = {"cpu": str(pods.cpus), "memory": pods.memory}
    if pods.gpus:
        work["nvidia.com/gpu"] = str(pods.gpus)
    folder = pods.mount if pods.claim else None
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": "vamoh"}},
        "spec": {
            "entrypoint": entrypoint(command, launch=name, folder=folder, python="python"),
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 0},  # a submission that failed is an attempt that failed
            "backoffLimit": pods.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {"serviceType": "ClusterIP", "rayStartParams": {"num-cpus": "0"}, "template": head},
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": pods.nodes,
                        "minReplicas": pods.nodes,
                        "maxReplicas": pods.nodes,
                        "rayStartParams": {},
                        "template": _template("worker", pods, work),
                    }
                ],
            },
        },
    }


def apply(job: dict[str, Any]) -> None:
    """Create the job with the official client, as the user of the current context or as this pod.

    Raises:
        ValueError: If the client is not installed, or Kubernetes refuses the job.
        OSError: If Kubernetes cannot be reached.
    """
    try:
        from kubernetes import client, config
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError
    except ModuleNotFoundError as error:
        raise ValueError("--apply needs the package kubernetes: pip install 'vamoh[cluster]'") from error
    try:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        client.CustomObjectsApi().create_namespaced_custom_object(
            "ray.io", "v1", job["metadata"]["namespace"], "rayjobs", job, field_validation="Strict"
        )
    except config.ConfigException as error:
        raise ValueError(f"no Kubernetes is configured here: {' '.join(str(error).split())}") from error
    except ApiException as error:
        raise ValueError(f"Kubernetes refuses the job: {error.status} {error.reason}: {error.body}") from error
    except HTTPError as error:
        raise OSError(f"Kubernetes cannot be reached: {' '.join(str(error).split())[:300]}") from error


def _template(group: str, pods: Pods, resources: dict[str, str]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    if pods.claim is not None:
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": pods.claim}})
        mounts.append({"name": "shared", "mountPath": pods.mount})
    container: dict[str, Any] = {
        "name": f"ray-{group}",
        "image": pods.image,
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    if pods.variables:
        pairs = (text.partition("=") for text in pods.variables)
        container["env"] = [{"name": name, "value": value} for name, _, value in pairs]
    if pods.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in pods.secrets]
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": volumes,
    }
    if pods.tolerations:
        spec["tolerations"] = [_toleration(text) for text in pods.tolerations]
    return {"metadata": {"labels": {"app.kubernetes.io/name": "vamoh"}}, "spec": spec}


def _toleration(text: str) -> dict[str, str]:
    """One toleration.

    >>> _toleration("spot=true:NoSchedule")
    {'key': 'spot', 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'}
    """
    found = _TOLERATION.fullmatch(text)
    assert found is not None
    key, value, effect = found.groups()
    tolerated = {"key": key, "operator": "Exists" if value is None else "Equal", "value": value, "effect": effect}
    return {name: told for name, told in tolerated.items() if told is not None}
