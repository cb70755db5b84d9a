"""A store is streamed from real servers, over HTTP and S3, that fail now and then, and are named when they fail."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
import pytest
import xarray as xr

from pipelines.data import remote
from pipelines.data.chunks import ChunkPlan
from pipelines.data.store import Store, open_store, write_store
from pipelines.data.stored import ChunkError
from pipelines.data.stream import FieldStream, Samples

Fault = Callable[["Faulty", bytes], None]
PAUSES_S = (0.02, 0.04)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, and not long between them."""
    for module in ("remote", "stored"):
        monkeypatch.setattr(f"pipelines.data.{module}.PAUSES_S", PAUSES_S)


@pytest.fixture(scope="module")
def local(globe: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The 24 real fields, four in a chunk, each chunk a block."""
    path = tmp_path_factory.mktemp("remote") / "store"
    plan = ChunkPlan(chunk=4, shard=None, slab=24)
    return write_store(globe.assign_attrs(units="K"), path, source="", license="", plan=plan)


class Faulty(SimpleHTTPRequestHandler):
    """Serves files; a chunk's first answers are faults."""

    def __init__(self, faults: dict[str, list[Fault]], *request: object, **options: object) -> None:
        self.faults = faults
        super().__init__(*request, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # noqa: N802 - the base class' name
        waiting = self.faults.get(self.path.partition("/t2m/c/")[2])
        if not waiting:
            return super().do_GET()
        waiting.pop(0)(self, Path(self.translate_path(self.path)).read_bytes())

    def answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def busy(server: Faulty, body: bytes) -> None:
    server.send_error(503, "Slow Down")


def silent(server: Faulty, body: bytes) -> None:
    time.sleep(0.6)
    server.close_connection = True


def slow(server: Faulty, body: bytes) -> None:
    """A byte now and then, which is not silence."""
    server.send_response(200)
    server.send_header("Content-Length", str(len(body)))
    server.end_headers()
    for first in range(0, len(body), len(body) // 5):
        server.wfile.write(body[first : first + len(body) // 5])
        time.sleep(0.1)


def cut(server: Faulty, body: bytes) -> None:
    """Fewer bytes than were promised."""
    server.answer(body[: len(body) // 2], len(body))
    server.close_connection = True


def truncated(server: Faulty, body: bytes) -> None:
    """As many bytes as promised, but not the chunk's."""
    server.answer(body[: len(body) // 2])


def flipped(server: Faulty, body: bytes) -> None:
    server.answer(body[:50] + bytes([body[50] ^ 1]) + body[51:])


@pytest.fixture
def serve(local: Store) -> Callable[..., object]:
    """An HTTP server over the store: `with serve({"3/0/0": [busy]}) as url`."""

    @contextmanager
    def start(faults: dict[str, list[Fault]]) -> Iterator[str]:
        handler = partial(Faulty, faults, directory=str(Path(local.path).parent))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/store"
        finally:
            server.shutdown()
            server.server_close()

    return start


def opened(url: str) -> Store:
    """With less patience for silence than a minute."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=0.3)
    return open_store(url, storage_options={"client_kwargs": {"timeout": timeout}})


def batches(store: Store, **changes: object) -> list[Samples]:
    given = {"samples": np.arange(24), "batch_size": 5, "seed": 3, "buffer": 2, "last": "keep"}
    return list(FieldStream(store=store, **{**given, **changes}).epoch(0))  # type: ignore[arg-type]


def same(given: list[Samples], expected: list[Samples]) -> None:
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one.position, other.position)
        np.testing.assert_array_equal(one.fields, other.fields)


@pytest.mark.parametrize("fault", [busy, silent, cut, truncated, flipped])
def test_a_server_that_fails_once_or_twice_is_asked_again(serve, local, fault) -> None:
    faults = {"3/0/0": [fault], "5/0/0": [fault, fault]}
    with serve(faults) as url:
        same(batches(opened(url)), batches(local))
    assert faults == {"3/0/0": [], "5/0/0": []}


def test_a_server_that_is_slow_but_not_silent_is_waited_for(serve, local) -> None:
    faults = {"3/0/0": [slow]}
    with serve(faults) as url:
        same(batches(opened(url)), batches(local))
    assert faults == {"3/0/0": []}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (busy, r"cannot be read after 3 attempts \(503, message='Slow Down'"),
        (silent, r"cannot be read after 3 attempts \(.+\)"),
        (cut, r"cannot be read after 3 attempts \(.*[Nn]ot enough data"),
        (truncated, r"is damaged \(Stored and computed checksum do not match"),
        (flipped, r"is damaged \(Stored and computed checksum do not match"),
    ],
)
def test_a_server_that_goes_on_failing_is_one_error_that_names_chunk_and_samples(serve, fault, reason) -> None:
    with serve({"3/0/0": [fault] * 100}) as url, pytest.raises(ChunkError, match=reason) as failure:
        batches(opened(url))
    said = str(failure.value)
    assert said.startswith(f"chunk t2m/c/3/0/0 of {url!r} ") and "\n" not in said
    assert "it holds samples 12 to 15 (2026-03-28T" in said


def test_skipping_is_for_damage_and_not_for_a_server_that_does_not_answer(serve) -> None:
    with serve({"3/0/0": [truncated] * 100}) as url:
        given = batches(opened(url), skip_corrupt=True)
        assert sorted(p for b in given for p, w in zip(b.position, b.weight, strict=True) if not w) == [12, 13, 14, 15]
    with serve({"3/0/0": [busy] * 100}) as url, pytest.raises(ChunkError, match="503"):
        batches(opened(url), skip_corrupt=True)


def test_a_store_whose_server_is_gone_is_one_clear_error(serve) -> None:
    with serve({}) as url:
        pass
    with pytest.raises(OSError, match=r"^'http://127.0.0.1:\d+/store' cannot be reached: "):
        open_store(url)


class Bucket(NamedTuple):
    """A store on S3, and the answers with 503 that its server still gives for a key that ends so."""

    url: str
    busy: dict[str, int]


@pytest.fixture
def bucket(local: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An S3 server with the store in a bucket; the endpoint and the keys come from the environment."""
    moto = pytest.importorskip("moto.server", reason="the package moto[server], an S3 server, is not installed")
    s3fs = pytest.importorskip("s3fs", reason="the package s3fs, for s3:// URLs, is not installed")
    serving = pytest.importorskip("werkzeug.serving")
    s3, busy_for = moto.DomainDispatcherApplication(moto.create_backend_app), {"": 0}

    def answer(request: dict[str, str], start: Callable[..., object]) -> Iterable[bytes]:
        for end in busy_for:
            if end and request["PATH_INFO"].endswith(end) and busy_for[end]:
                busy_for[end] -= 1
                start("503 Slow Down", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        return s3(request, start)

    server = serving.make_server("127.0.0.1", 0, answer, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem, name = s3fs.S3FileSystem(), f"climate-{server.server_port}"
    filesystem.mkdir(name)
    filesystem.put(local.path, f"{name}/store", recursive=True)
    yield Bucket(f"s3://{name}/store", busy_for)
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_a_store_is_streamed_from_s3(bucket, local) -> None:
    store = open_store(bucket.url)
    assert store.fingerprint == local.fingerprint
    same(batches(store, threads=2), batches(local))


def test_s3_that_is_busy_now_and_then_is_asked_again(bucket, local) -> None:
    store = open_store(bucket.url)
    bucket.busy.update({"t2m/c/3/0/0": 3, "t2m/c/5/0/0": 1})
    same(batches(store), batches(local))
    assert set(bucket.busy.values()) == {0}


def test_s3_that_stays_busy_is_one_error_that_names_chunk_and_samples(bucket, monkeypatch) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # it asks again itself, beside the attempts counted here
    store = open_store(bucket.url)
    bucket.busy["t2m/c/3/0/0"] = 10**6
    with pytest.raises(ChunkError, match=r"^chunk t2m/c/3/0/0 of 's3://climate-\d+/store' cannot be read .*12 to 15"):
        batches(store)


def test_a_damaged_object_on_s3_is_named(bucket) -> None:
    import s3fs

    filesystem, key = s3fs.S3FileSystem(), f"{bucket.url}/t2m/c/3/0/0"
    filesystem.pipe(key, filesystem.cat(key)[:-100])
    with pytest.raises(ChunkError, match=r"^chunk t2m/c/3/0/0 of 's3://.*/store' is damaged .* samples 12 to 15"):
        batches(open_store(bucket.url))
    given = batches(open_store(bucket.url), skip_corrupt=True)
    assert sum(int((batch.weight == 0).sum()) for batch in given) == 4


def test_silence_is_bounded_over_http_without_being_asked_for() -> None:
    timeout = (remote.remote_options("https://example.org/store", None) or {})["client_kwargs"]["timeout"]
    assert (timeout.total, timeout.sock_read) == (None, remote.SILENCE_S)
