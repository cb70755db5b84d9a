"""The explorer in a real Chromium: servers in threads of this process, one browser, and what a page must never do."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("panel", reason="the explorer needs panel: pip install 'vamoh[explore]'")
playwright = pytest.importorskip("playwright.sync_api", reason="the explorer's tests need playwright")

from pipelines.config import load_config  # noqa: E402
from pipelines.data.climate import ingest  # noqa: E402
from pipelines.data.shapes import ingest as ingest_shapes  # noqa: E402
from pipelines.training.train import train  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1280, 400)
_TINY = (
    "split.gap_hours=0",
    "context.every=4",
    "model.latent=4",
    "model.components=2",
    "model.flow_depth=1",
    "model.fourier_frequencies=4",
    "model.hypernetwork=[16]",
    "model.generator=[8]",
    "model.gating=[8]",
    "model.encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.context_encoder={centres: [16, 4], channels: [8, 8], neighbours: [5, 4], kernel_widths: [4, 4]}",
    "model.local={neighbours: 12, kernels: 6, features: 2, location_features: 2, reach: 0.7, levels: 3, finest: 0.7}",
    "training.epochs=2",
    "training.validate_every=2",
    "training.points=256",
    "training.batch_size=5",
    "training.members=4",
    "training.threads=1",
    "training.learning_rate=0.01",
    "training.stages={prior: 0, gate: 0}",
)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What drives a page wants the processors for itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "page" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


ExplorerAt = Callable[[str | Path | None, str | Path | None], str]


@pytest.fixture(scope="session")
def explorer_at() -> Iterator[ExplorerAt]:
    """Serve the explorer on a model and a store: the page's address. One server for each pair."""
    from infra.explorer.serve import make_server

    stack, urls = contextlib.ExitStack(), {}

    def at(model: str | Path | None, store: str | Path | None) -> str:
        named = (None if model is None else str(model), None if store is None else str(store))
        if named not in urls:
            urls[named] = stack.enter_context(in_thread(lambda: make_server(*named, port=0)))
        return urls[named]

    with stack:
        yield at


@contextlib.contextmanager
def in_thread(make: Callable[[], object]) -> Iterator[str]:
    """Run a server in a thread of this process, on a loop of its own."""
    import asyncio

    made, started = [], threading.Event()

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = make()
        made.append(server)
        server.start()
        server.io_loop.add_callback(started.set)
        server.io_loop.start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(60), "the server did not start"
    (server,) = made
    yield f"http://localhost:{server.port}/"
    server.io_loop.add_callback(server.stop, wait=False)
    server.io_loop.add_callback(server.io_loop.stop)
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Debian's Chromium; no longer than a module, for a running loop of Playwright's would be in others' way."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (apt install chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """A page 1280 wide, that must write no error to the console and ask no other host for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    wrong: list[str] = []
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda asked: wrong.append(asked.url) if not _ours(asked.url) else None)
    yield opened
    context.close()
    assert wrong == []


def _ours(url: str) -> bool:
    return url.startswith(("http://localhost:", "ws://localhost:", "http://127.0.0.1:", "data:", "blob:", "file:"))


@pytest.fixture
def shot(tmp_path: Path) -> Callable[[object, str], Path]:
    """Keep a picture of a page, in the test's folder or in $EXPLORER_SHOTS."""
    folder = Path(os.environ.get("EXPLORER_SHOTS", tmp_path))

    def keep(page: object, name: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=True)
        return path

    return keep


@pytest.fixture(scope="session")
def globe(era5_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of genuine ERA5 of the globe: 24 fields of 46 x 90 points, 4 degrees."""
    return Path(ingest(str(era5_sample), tmp_path_factory.mktemp("stores") / "globe.zarr", every=4).path)


@pytest.fixture(scope="session")
def model(globe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A downscaling model of every 4th point of it, trained for seconds and registered as `tiny`."""
    folder = tmp_path_factory.mktemp("explored")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return train(load_config("downscale", _TINY), str(globe), name="tiny", register="tiny").checkpoint


# --- for the tabs Imagine, Complete and Compare ---------------------------------------------------------------------

_SHAPES = (
    "model.latent=6",
    "model.flow_depth=2",
    "model.fourier_frequencies=12",
    "model.encoder={centres: [64, 16], channels: [8, 8], neighbours: [32, 8], kernel_widths: [8], places: true}",
    "model.hypernetwork=[16]",
    "model.generator=[16]",
    "model.gating=[8]",
    "training.epochs=80",
    "training.validate_every=80",
    "training.batch_size=16",
    "training.points=256",
    "training.warmup=0",
    "training.learning_rate=0.01",
    "training.average=0.9",
    "training.members=2",
    "training.threads=1",
    "split.validation=0.05",
)
_FIELDS = tuple(each for each in _TINY if not each.startswith(("context.", "model.context", "model.local")))


@pytest.fixture(scope="session")
def tracked(model: Path) -> str:
    """The tracking store that `model` was trained in: making another one takes seconds."""
    return f"sqlite:///{model.parents[2] / 'mlruns' / 'mlflow.db'}"


@pytest.fixture(scope="session")
def classic(globe: Path, model: Path, tracked: str) -> Path:
    """A classic model of whole fields, trained for seconds."""
    with contextlib.chdir(model.parents[2]), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracked)
        return train(load_config("era5", _FIELDS), str(globe), name="fields").checkpoint.absolute()


@pytest.fixture(scope="session")
def chairs(chairs_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 84 genuine chairs at 16^3."""
    folder = tmp_path_factory.mktemp("chairs")
    with np.load(chairs_npz) as arrays:
        np.savez(folder / "chairs.npz", chair=arrays["train"][:84])
    return Path(ingest_shapes(folder / "chairs.npz", folder / "chairs.zarr", resolution=16, test=12).store.path)


@pytest.fixture(scope="session")
def chair_model(chairs: Path, model: Path, tracked: str) -> Path:
    """A model of them, trained for seconds."""
    with contextlib.chdir(model.parents[2]), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracked)
        return train(load_config("shapes", _SHAPES), str(chairs), name="chairs").checkpoint.absolute()
