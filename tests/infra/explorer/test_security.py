"""Who comes in, what may be sent, and what a dropped file can do."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr
from bokeh.util.token import generate_jwt_token, generate_session_id
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from infra.cli import explore
from infra.explorer.downscaling import input as downscaling_input
from infra.explorer.downscaling.input import from_upload
from infra.explorer.security import CHUNK_BYTES, check_access, origins
from infra.explorer.serve import free_port, make_server
from infra.explorer.uploads import Upload
from tests.infra.explorer.conftest import in_thread

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Iterator[str]:
    """A server that asks for a password."""
    path = tmp_path_factory.mktemp("locked") / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    with in_thread(lambda: make_server(None, None, port=0, password_file=path)) as url:
        yield url


def knock(url: str, origin: str, cookie: str = "") -> int:
    """Open the websocket from a page of another origin: the HTTP status, 101 if it opens."""

    async def knocking() -> int:
        token = generate_jwt_token(generate_session_id())
        headers = {"Origin": origin, "Sec-WebSocket-Protocol": f"bokeh, {token}"} | (
            {"Cookie": cookie} if cookie else {}
        )
        request = HTTPRequest(url.replace("http:", "ws:") + "ws", headers=headers)
        try:
            opened = await websocket_connect(request)
        except HTTPClientError as error:
            return error.code
        opened.close()
        return 101

    with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
        return thread.submit(lambda: asyncio.run(knocking())).result()


def test_the_websocket_opens_to_pages_of_this_server_only(explorer_at) -> None:
    url = explorer_at(None, None)
    port = url.rstrip("/").rpartition(":")[2]
    assert knock(url, f"http://localhost:{port}") == 101
    for other in ("http://evil.example", f"http://evil.example:{port}", "http://localhost:1", "null"):
        assert knock(url, other) == 403, other


def test_without_the_password_there_is_no_page_and_no_websocket(locked) -> None:
    port = locked.rstrip("/").rpartition(":")[2]
    with urllib.request.urlopen(locked) as answer:
        assert answer.url.startswith(f"{locked}login")
        assert b"docs_json" not in answer.read()
    assert knock(locked, f"http://localhost:{port}") in (302, 403, 599)


def test_the_password_opens_it_and_another_does_not(page, locked, shot, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)  # where no model is registered
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page.goto(locked)
    page.get_by_label("Password").fill("not this one")
    page.keyboard.press("Enter")
    assert "not the password" in page.get_by_role("alert").inner_text()
    shot(page, "password-1280")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_text("There is no model yet").wait_for()


def test_other_machines_are_let_in_with_a_password_only(tmp_path) -> None:
    with pytest.raises(ValueError, match="--password-file"):
        check_access("0.0.0.0", None)
    assert check_access("127.0.0.1", None) is None
    path = tmp_path / "password"
    with pytest.raises(FileNotFoundError, match="no password file"):
        check_access("0.0.0.0", path)
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(ValueError, match="at least 12"):
        check_access("0.0.0.0", path)
    path.write_text(PASSWORD)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        check_access("0.0.0.0", path)
    path.chmod(0o600)
    assert check_access("0.0.0.0", path) == PASSWORD


def test_every_name_of_this_machine_may_open_it_and_no_wildcard() -> None:
    assert origins("127.0.0.1", 5006) == ["127.0.0.1:5006", "localhost:5006"]
    assert "localhost:8080" in origins("127.0.0.1", 5006, ["localhost:8080"])
    for wrong in ("*", "*.example:80", "http://a", "a:b", ""):
        with pytest.raises(ValueError, match="--origin expects HOST:PORT"):
            origins("127.0.0.1", 5006, [wrong])
    everywhere = origins("0.0.0.0", 5006)
    assert f"{socket.gethostname()}:5006" in everywhere
    assert not any("*" in each or each.startswith("0.0.0.0") for each in everywhere)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is taken"):
            free_port("127.0.0.1", port)


# --- what is dropped ------------------------------------------------------------------------------------------------


def dropped(upload: Upload, chunk: int, total: int, data: object, name: str = "a.nc") -> None:
    upload._process_event(
        SimpleNamespace(
            event_name="upload_event", data={"chunk": chunk, "total_chunks": total, "data": data, "name": name}
        )
    )


def test_a_file_of_more_than_is_allowed_is_refused_whatever_the_browser_says() -> None:
    taken: list[bytes] = []
    said: list[str] = []
    upload = Upload(max_bytes=3 * 2**20, take=lambda content, name: taken.append(content), refuse=said.append)
    dropped(upload, 1, 1000, b"x")
    assert "larger than the 3 MB" in said.pop()
    for chunk in (1, 2, 3, 4):
        dropped(upload, chunk, 2, b"x" * 2**20)
    assert len(taken) == 1 and len(taken[0]) == 2 * 2**20
    dropped(upload, 1, 2, b"x" * 2**20)
    dropped(upload, 2, 2, b"x" * (3 * 2**20))
    assert "larger than" in said.pop() and len(taken) == 1
    for wrong in (b"x", 7, None, ["x"]):
        dropped(upload, 5, 2, wrong)
    assert len(taken) == 1 and said == []
    assert CHUNK_BYTES <= 16 * 2**20


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04\x95pickle", b"GRIB....", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n broken"]
)
def test_what_is_no_netcdf_gets_one_sentence(content) -> None:
    with pytest.raises(ValueError, match=r"^mine\.nc ") as refused:
        from_upload(content, "mine.nc")
    assert "/tmp" not in str(refused.value)


def test_a_name_is_never_a_path(tmp_path, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(downscaling_input, "open_field", lambda path, *more: opened.append(path) or 1 / 0)
    target = tmp_path / "victim.nc"
    with pytest.raises(ZeroDivisionError):
        from_upload(b"CDF\x01 anything", f"../../..{target}")
    assert Path(opened[0]).name == "dropped.nc" and not target.exists()
    for name in ("../../etc/passwd", "..\\..\\evil.nc", ""):
        with pytest.raises(ValueError) as refused:
            from_upload(b"junk", name)
        assert ".." not in str(refused.value)


def test_hdf5_that_points_to_other_files_is_not_opened(tmp_path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 4096)
    field = xr.DataArray(
        np.full((1, 4, 8), 280.0), dims=("time", "latitude", "longitude"), name="t2m", attrs={"units": "K"}
    )
    kinds = {}
    for kind in ("external storage", "external link", "virtual"):
        path = tmp_path / f"{kind}.nc"
        field.to_netcdf(path, engine="h5netcdf")
        with h5py.File(path, "a") as file:
            if kind == "external storage":
                file.create_dataset("inner/stolen", (64,), "f4", external=[(str(secret), 0, 256)])
            elif kind == "external link":
                file["stolen"] = h5py.ExternalLink(str(secret), "/")
            else:
                layout = h5py.VirtualLayout((64,), "f4")
                layout[:] = h5py.VirtualSource(str(secret), "x", shape=(64,))
                file.create_virtual_dataset("stolen", layout)
        kinds[kind] = path.read_bytes()
    for content in kinds.values():
        with pytest.raises(ValueError, match="points to other files"):
            from_upload(content, "mine.nc")


def test_a_small_file_that_holds_too_much_is_refused_before_it_is_read(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(downscaling_input, "MAX_VALUES", 1000)
    field = xr.DataArray(
        np.full((2, 40, 60), 280.0, np.float32),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": np.array(["2019-03-01", "2019-03-02"], "M8[ns]"),
            "latitude": np.linspace(60, 40, 40),
            "longitude": np.linspace(0, 30, 60),
        },
        name="t2m",
        attrs={"units": "K"},
    )
    field.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="million values"):
        from_upload((tmp_path / "a.nc").read_bytes(), "a.nc")


# --- the command ----------------------------------------------------------------------------------------------------


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vamoh\[explore\]'"):
        explore.explore()


def test_a_mistake_on_the_command_line_is_one_sentence(vamoh, tmp_path) -> None:
    cases = {
        ("--address", "0.0.0.0"): "give a password too",
        ("nothing/here",): "there is no model 'nothing/here'",
        ("--store", "nothing.zarr"): "there is no store at 'nothing.zarr'",
        ("--export", "page.pdf"): "expected FILE.html",
        ("--export", "page.html"): "--export needs a model",
    }
    for words, said in cases.items():
        ended = vamoh("explore", "--no-open", "--port", "0", *words)
        assert (ended.code, ended.out) == (2, ""), words
        assert said in ended.err and ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_command_and_it_prints_where_it_is(tmp_path) -> None:
    command = [sys.executable, "-m", "infra.cli", "explore", "--port", "0", "--no-open"]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(root)
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        line = running.stdout.readline()
        assert line.startswith("vamoh explorer: http://localhost:"), line
        url = line.split()[2]
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        assert running.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []  # to look makes no database


def _environment(root: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
