"""A registered model answers over HTTP as it does on files, and says why it does not."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.products.downscale import downscale
from pipelines.products.serving import grid_of
from pipelines.training.packaging import LIMITS
from pipelines.training.registry import load_model, resolve
from pipelines.training.tracking import client

QUERY = np.array([[51.3, 0.0], [48.9, 2.4], [-0.2, -78.5], [90.0, 10.0], [-35.0, 179.9]])
Request = dict[str, dict[str, object]]


def points_of(coarse, *, shuffled: bool = True) -> Request:
    """A request for the fields of `coarse` at five places."""
    latitude, longitude = np.meshgrid(coarse["latitude"].values, coarse["longitude"].values, indexing="ij")
    order = np.random.default_rng(0).permutation(latitude.size) if shuffled else np.arange(latitude.size)
    coords = np.stack([latitude.ravel(), longitude.ravel()], axis=-1)[order]
    fields = coarse.values.reshape(len(coarse), -1)[:, order, None].astype(float)
    inputs = {"coords": [coords] * len(fields), "values": fields, "query": [QUERY] * len(fields)}
    times = [str(time)[:19] for time in coarse["time"].values]
    params: dict[str, object] = {"members": 3, "seed": 5, "time": times}
    return {"inputs": {name: np.asarray(each).tolist() for name, each in inputs.items()}, "params": params}


@pytest.fixture(scope="module")
def request_of_three(truth) -> Request:
    return points_of(truth[:3, ::3, ::3])


@pytest.fixture(scope="module")
def expected(truth, teller, tmp_path_factory) -> np.ndarray:
    """[time, realization, station]: what `downscale` gives at the places of the query."""
    where = tmp_path_factory.mktemp("places") / "places.csv"
    where.write_text("latitude,longitude\n" + "".join(f"{row[0]},{row[1]}\n" for row in QUERY))
    return downscale(truth[:3, ::3, ::3], teller, points=where, members=3, seed=5)["t2m"].values.swapaxes(0, 1)


# --- the model that MLflow loads -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(trained) -> Iterator[Any]:
    import mlflow

    with contextlib.chdir(trained.folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained.folder / 'mlruns' / 'mlflow.db'}")
        mlflow.set_tracking_uri(None)
        yield mlflow.pyfunc.load_model("models:/tiny@champion")


def arrays(request: Request) -> dict[str, np.ndarray]:
    return {name: np.array(values, dtype=float) for name, values in request["inputs"].items()}


def test_points_get_the_members_that_files_get_whatever_their_order(loaded, request_of_three, expected) -> None:
    answer = loaded.predict(arrays(request_of_three), params=request_of_three["params"])
    assert answer.shape == (3, 3, 5)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-4)


def test_fields_may_have_points_of_their_own(loaded, request_of_three, expected) -> None:
    inputs = arrays(request_of_three)
    inputs["query"][1] = inputs["query"][1, ::-1]
    answer = loaded.predict(inputs, params=request_of_three["params"])
    np.testing.assert_allclose(answer[1, :, ::-1], expected[1], rtol=0, atol=2e-4)
    np.testing.assert_allclose(answer[2], expected[2], rtol=0, atol=2e-4)


def test_nothing_of_a_registered_model_is_pickled(trained) -> None:
    with contextlib.chdir(trained.folder):
        folder, _ = resolve("models:/tiny@champion")
    names = {path.name for path in folder.iterdir()}
    assert {"MLmodel", "checkpoint.json", "model.safetensors", "serving_script.py", "README.md"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))]


def test_a_classic_model_completes_a_field_from_the_points_that_it_is_given(classic, truth) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(resolve_in(classic.folder, "models:/classic@champion")))
    request = points_of(truth[:2])
    request["params"].pop("time")
    request["inputs"]["values"][0][7] = [None]
    answer = model.predict(arrays(request), params=request["params"])
    assert answer.shape == (2, 3, 5) and np.isfinite(answer).all()
    assert 200 < answer.min() < answer.max() < 330
    again = model.predict(arrays(request), params=request["params"])
    np.testing.assert_array_equal(again, answer)


def resolve_in(folder: Path, model: str) -> Path:
    with contextlib.chdir(folder):
        return resolve(model)[0]


def test_a_version_from_before_there_was_serving_still_loads(trained) -> None:
    with contextlib.chdir(trained.folder):
        mlflow = client()
        run = mlflow.create_run(mlflow.get_run(trained.run_id).info.experiment_id)
        mlflow.log_artifacts(run.info.run_id, str(trained.checkpoint), "checkpoint")
        mlflow.create_registered_model("early")
        mlflow.create_model_version("early", f"{run.info.artifact_uri}/checkpoint", run.info.run_id)
        checkpoint, _, origin = load_model("models:/early/1")
    assert origin["version"] == "1" and checkpoint.plan.variable == "t2m"


@pytest.mark.parametrize("start", [0, -180, 170])
def test_points_in_any_order_are_the_grid_that_they_came_from(start) -> None:
    latitude, longitude = np.arange(60.0, 40, -4), start + np.arange(0.0, 40, 5)
    rows, columns = np.meshgrid(latitude, (longitude + 180) % 360 - 180, indexing="ij")
    order = np.random.default_rng(1).permutation(rows.size)
    values = np.arange(2.0 * rows.size).reshape(2, -1)
    found = grid_of(np.stack([rows.ravel(), columns.ravel()], -1)[order], values[:, order])
    assert found is not None
    lattice, fields = found
    np.testing.assert_array_equal(lattice.latitude, latitude)
    np.testing.assert_allclose((lattice.longitude - longitude) % 360, 0)
    np.testing.assert_array_equal(fields.reshape(2, -1), values)


def test_points_that_are_no_grid_are_told_from_one() -> None:
    rows, columns = np.meshgrid([52.0, 51, 50], [0.0, 1], indexing="ij")
    coords = np.stack([rows.ravel(), columns.ravel()], -1)
    assert grid_of(coords, np.zeros((1, 6))) is not None
    assert grid_of(coords[:-1], np.zeros((1, 5))) is None
    coords[0, 0] = 51.0  # twice the same place
    assert grid_of(coords, np.zeros((1, 6))) is None


# --- the server ------------------------------------------------------------------------------------------------------


class Server:
    """`mlflow models serve` in a process of its own."""

    def __init__(self, folder: Path, model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["models", "serve", "-m", model, "--env-manager", "local", "--port", str(self.port)]
        # it looks for uvicorn on the path; its own folder is not the repository, which is installed
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        there = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
        root = str(Path(__file__).parents[2])
        self.log = (folder / "serve.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            env=os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": there, "PYTHONPATH": root},
            cwd=folder, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self.up():
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "serve.log").read_text()
            time.sleep(0.3)

    def up(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            line.request("GET", "/ping")
            return line.getresponse().status == 200
        return False

    def post(self, body: object, content: str = "application/json") -> tuple[int, dict]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.request("POST", "/invocations", body if isinstance(body, bytes) else json.dumps(body).encode(),
                     {"Content-Type": content})  # fmt: skip
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())

    def peak_mb(self) -> float:
        """Of the largest of its processes."""
        peaks = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if os.getsid(int(folder.name)) == self.process.pid:
                    peaks.append(int((folder / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
        return max(peaks)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def server(trained) -> Iterator[Server]:
    running = Server(trained.folder, "models:/tiny@champion")
    yield running
    running.close()


def changed(request: Request, **changes: object) -> Request:
    inputs = {key: changes.get(key, value) for key, value in request["inputs"].items()}
    params = {key: changes.get(key, value) for key, value in request["params"].items()}
    return {"inputs": {k: v for k, v in inputs.items() if v is not None}, "params": params}


@pytest.mark.slow
def test_a_served_model_answers_as_files_do_and_refuses_with_the_reason(server, request_of_three, expected) -> None:
    status, answer = server.post(request_of_three)
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], expected, rtol=0, atol=2e-4)

    good = request_of_three
    coords, values = (np.array(good["inputs"][name]) for name in ("coords", "values"))
    gap = values.tolist()
    gap[0][3] = [None]
    assert server.post(changed(good, values=gap))[0] == 200
    moved = coords.copy()
    moved[:, 3] += 0.1
    wrong = {
        "params.time must say when": changed(good, time=[]),
        "ISO 8601": changed(good, time=["yesterday"]),
        "members must be 1 to 1000, got 0": changed(good, members=0),
        "Can not safely convert": changed(good, members="many"),
        "params.members must be a whole number": changed(good, members=None),
        "seed must be 0 or more": changed(good, seed=-1),
        "values must be temperatures in kelvin": changed(good, values=(values - 273.15).tolist()),
        "coords must be the points of a latitude-longitude grid": changed(good, coords=moved.tolist()),
        "not on Earth": changed(good, coords=coords[..., ::-1].tolist()),
        "one value a point": changed(good, values=values[:, 1:].tolist()),
        "Model is missing inputs ['query']": changed(good, query=None),
        "as many fields as coords": changed(good, query=[[[51.0, 0.0]]]),
        "fields x members x query points may be": changed(good, members=1000, query=[[[51.0, 0.0]] * 400] * 3),
        "valid JSON": b"not json",
        "nested too deeply": b"[" * 100_000,
        "exactly one of the input fields": {},
    }
    for reason, body in wrong.items():
        status, answer = server.post(body)
        assert status == 400, (reason, status, answer)
        assert reason in answer["message"], answer
        assert len(json.dumps(answer)) < 1200, "a refusal does not repeat the request"
        assert "Traceback" not in json.dumps(answer)


@pytest.mark.slow
def test_a_huge_request_is_refused_before_it_costs_memory(server, request_of_three) -> None:
    assert server.post(request_of_three)[0] == 200
    before, limit = server.peak_mb(), LIMITS["max_request_bytes"]
    declared = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    declared.putrequest("POST", "/invocations")
    declared.putheader("Content-Type", "application/json")
    declared.putheader("Content-Length", str(10**10))
    declared.endheaders()  # of which nothing is sent
    answer = declared.getresponse()
    assert answer.status == 413 and f"may have {limit} bytes and" in json.loads(answer.read())["message"]

    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(b"POST /invocations HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        sent, piece = 0, b"10000\r\n" + b"[" * 2**16 + b"\r\n"
        with contextlib.suppress(OSError):  # it hangs up
            while sent < 20 * limit:
                line.sendall(piece)
                sent += 2**16
        assert sent < 20 * limit
    lists = b'{"inputs": [' + b"[]," * (limit // 4) + b"[]]}"
    status, answer = server.post(lists)
    assert status == 413 and len(lists) < limit and f"{limit // 16} lists" in answer["message"]
    assert server.peak_mb() - before < 60
    assert server.post(request_of_three)[0] == 200, "it goes on serving"
