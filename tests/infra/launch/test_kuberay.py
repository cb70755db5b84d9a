"""`vamoh launch kuberay`: a manifest that KubeRay's own schema takes, and what the official client sends."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import SHARED_DATA

COMMAND = ("--", "train", "era5", "--store", "s3://us/era5.zarr", "--workers", "2", "--name", "a")
ALL = ("--image", "ghcr.io/me/vamoh:1", "--name", "night", "--nodes", "2", "--gpus-per-node", "4", "--claim", "data",
       "--secret", "s3", "--env", "MLFLOW_TRACKING_URI=http://mlflow:5000", "--toleration", "spot=true:NoSchedule",
       "--toleration", "nvidia.com/gpu", "--retries", "2")  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    path = SHARED_DATA / "kuberay_rayjob_v1.schema.json"
    if not path.is_file():
        pytest.skip(f"KubeRay's schema {path.name} is not beside the repository (../shared/data)")
    return strict(json.loads(path.read_text()))


def strict(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """The schema as Kubernetes reads it with strict field validation: what it does not name is refused."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.get("type") == "object":
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    return found


def test_the_manifest_is_what_kuberay_takes(schema: dict[str, Any], vamoh) -> None:
    for options in (ALL, ("--image", "a")):
        done = vamoh("launch", "kuberay", *options, *COMMAND)
        assert done.code == 0, done.err
        jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(done.out))


def test_a_field_that_kuberay_does_not_know_would_be_refused(schema: dict[str, Any], vamoh) -> None:
    for place in ("spec", "spec.rayClusterSpec", "spec.rayClusterSpec.headGroupSpec.template.spec"):
        job = yaml.safe_load(vamoh("launch", "kuberay", *ALL, *COMMAND).out)
        within = job
        for name in place.split("."):
            within = within[name]
        within["shutdownAfterJobFinnishes"] = True
        with pytest.raises(jsonschema.ValidationError, match="shutdownAfterJobFinnishes"):
            jsonschema.Draft202012Validator(schema).validate(job)


def test_the_manifest_asks_for_what_was_asked(vamoh) -> None:
    spec = yaml.safe_load(vamoh("launch", "kuberay", *ALL, *COMMAND).out)["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert (spec["backoffLimit"], spec["submitterConfig"]["backoffLimit"]) == (2, 0)
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == 2
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert {"name": "shared", "persistentVolumeClaim": {"claimName": "data"}} in pod["volumes"]
    assert [each["operator"] for each in pod["tolerations"]] == ["Equal", "Exists"]
    words = "--id night --folder /shared -- train era5 --store s3://us/era5.zarr --workers 2 --name a"
    assert spec["entrypoint"] == f"python -m infra.launch.again {words}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "Night"), "--name expects at most 47 lower-case letters"),
        (("--env", "AWS_SECRET_ACCESS_KEY=planted"), "AWS_SECRET_ACCESS_KEY is secret"),
        (("--env", "URI=http://ann:planted@host"), "URI is secret"),
        (("--toleration", "a b"), "--toleration expects"),
        (("--memory-per-node", "much"), "--memory-per-node expects"),
    ],
)
def test_what_kubernetes_would_refuse_or_show_is_refused_here(options: tuple[str, ...], said: str, vamoh) -> None:
    done = vamoh("launch", "kuberay", "--image", "a", *options, *COMMAND)
    assert done.code == 2
    assert said in done.err and "planted" not in done.err + done.out


class Api(http.server.BaseHTTPRequestHandler):
    """As much of Kubernetes' API as creating an object needs."""

    asked: list[tuple[str, dict[str, Any]]] = []
    status = 201

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        told = json.dumps(body if self.status == 201 else {"message": "rayjobs.ray.io is forbidden"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *given: object) -> None:
        """Keep still."""


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch) -> Iterator[type[Api]]:
    pytest.importorskip("kubernetes", reason="the extra `cluster` is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": where}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    Api.asked, Api.status = [], 201
    yield Api
    server.shutdown()


def test_apply_creates_the_job_with_the_official_client(kubernetes: type[Api], vamoh) -> None:
    printed = vamoh("launch", "kuberay", *ALL, "--namespace", "met", "--apply", "--dry-run", *COMMAND)
    assert kubernetes.asked == []
    done = vamoh("launch", "kuberay", *ALL, "--namespace", "met", "--apply", *COMMAND)
    assert done.code == 0, done.err
    ((path, body),) = kubernetes.asked
    assert path == "/apis/ray.io/v1/namespaces/met/rayjobs?fieldValidation=Strict"
    assert body == yaml.safe_load(printed.out)


def test_what_kubernetes_refuses_is_said_in_one_line(kubernetes: type[Api], vamoh) -> None:
    kubernetes.status = 403
    done = vamoh("launch", "kuberay", *ALL, "--apply", *COMMAND)
    assert done.code == 2
    assert "Kubernetes refuses the job: 403" in done.err and "is forbidden" in done.err
    assert len(done.err.splitlines()) == 1
