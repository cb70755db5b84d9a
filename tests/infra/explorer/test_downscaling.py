"""The tab Downscale, as a person uses it, and that it shows what the command writes."""

import contextlib
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from infra.cli import main
from infra.explorer.downscaling.input import FromStore, usual_every
from infra.explorer.downscaling.layers import QUANTITIES, layers
from infra.explorer.downscaling.map import coast, whole_of
from infra.explorer.downscaling.save import Shown, dataset
from infra.explorer.downscaling.view import Window, look, with_error
from infra.explorer.export import export_page
from infra.explorer.session import load
from pipelines.data.sphere import Lattice
from pipelines.data.store import open_store
from pipelines.products.downscale import downscale

ON_SCREEN = re.compile(r"(\d+) × (\d+) points of ([\d.e-]+)° on the screen")


def asked_for(page, place: tuple[float, float]) -> str:
    """Click a place until it is told of: a browser that is busy drawing takes a click for something longer."""
    told = page.get_by_role("status").filter(has_text="standard deviation")
    for _ in range(4):
        page.mouse.click(*place)
        with contextlib.suppress(PlaywrightTimeout):
            told.wait_for(timeout=6000)
            break
    return told.inner_text()


def never(done: int, total: int) -> None:
    """Work that is not ended."""


@pytest.fixture(scope="module")
def shown(model, globe) -> Shown:
    loaded, store = load(str(model)), open_store(globe)
    given = FromStore(store, usual_every(store, loaded.checkpoint.plan))
    at = np.array([20])
    ensemble = loaded.teller.ensemble(given.coarse(at), given.lattice, given.times[at], members=4, seed=3)
    window = Window.on_screen((-30.0, 30.0, 45.0, 72.0), 60, None, 10_000)
    seen = with_error(look(ensemble, window, never), ensemble, given.truth(at), never)
    return Shown(loaded=loaded, given=given, time=20, members=4, seed=3, quantity="spread", level=0.9, seen=seen)


def test_what_is_seen_is_what_downscale_gives_on_the_grid_of_the_command(shown) -> None:
    field = xr.DataArray(
        shown.given.coarse(np.array([20])),
        dims=("time", "latitude", "longitude"),
        coords={
            "time": shown.given.times[[20]],
            "latitude": shown.given.lattice.latitude,
            "longitude": shown.given.lattice.longitude,
        },
        attrs={"units": "K"},
        name="t2m",
    )
    window = shown.seen.window
    told = downscale(
        field,
        shown.loaded.teller,
        resolution=window.step_deg,
        region=window.region,
        members=4,
        seed=3,
        also=("spread",),
    )
    ours = dataset(shown)
    assert ours.sizes == told.sizes
    for axis in ("latitude", "longitude"):
        np.testing.assert_array_equal(ours[axis], told[axis])
    for name in ("t2m", "t2m_spread"):
        np.testing.assert_allclose(ours[name], told[name], atol=2e-3)
    assert ours.attrs["model_weights"] == told.attrs["model_weights"]


def test_the_error_is_the_mean_less_the_truth_at_its_own_points(shown) -> None:
    error, target = shown.seen.error
    truth = open_store(shown.given.store.path).field[20].sel(
        latitude=target.latitude, longitude=target.longitude % 360, method="nearest", tolerance=1e-6
    )  # fmt: skip
    ensemble = shown.loaded.teller.ensemble(
        shown.given.coarse(np.array([20])), shown.given.lattice, shown.given.times[[20]], members=4, seed=3
    )
    latitude, longitude = np.meshgrid(target.latitude, target.longitude, indexing="ij")
    mean = ensemble.at(latitude.ravel(), longitude.ravel())[0].mean(axis=0).reshape(error.shape)
    np.testing.assert_allclose(error, mean - truth.values, atol=2e-3)
    assert error.size > 50


@pytest.mark.parametrize("quantity", QUANTITIES.values())
def test_every_quantity_has_colours_limits_and_a_unit(shown, quantity) -> None:
    coarse, layer = layers(shown.seen, quantity, member=2, level=0.9)
    low, high = layer.limits
    assert low < high or quantity == "component"
    assert len(set(layer.palette)) >= 2
    assert layer.label.endswith(", K") or quantity == "component"
    assert np.isfinite(layer.values).all()
    assert coarse.kind == "field"


def test_a_window_is_never_asked_more_points_than_the_screen_has_or_than_is_allowed() -> None:
    near = Window.on_screen((-5.0, 50.0, -4.999, 50.0005), 1000, None, 100_000)
    assert near.step_deg == pytest.approx(1e-5)  # a metre, and no finer
    wide = Window.on_screen((-180.0, -90.0, 180.0, 90.0), 4000, None, 20_000)
    assert (360 / wide.step_deg) * (180 / wide.step_deg) <= 20_000 * 1.01
    asked = Window.on_screen((-10.0, 50.0, 2.0, 58.0), 1000, 0.25, 100_000)
    assert asked.step_deg == 0.25


def test_the_map_goes_on_across_the_date_line(shown) -> None:
    given, loaded = shown.given, shown.loaded
    at = np.array([20])
    ensemble = loaded.teller.ensemble(given.coarse(at), given.lattice, given.times[at], members=2, seed=0)
    seen = look(ensemble, Window.on_screen((170.0, -20.0, 200.0, 10.0), 30, None, 10_000), never)
    assert seen.longitude[0] == pytest.approx(170.0)
    assert (np.diff(seen.longitude) > 0).all()
    here = look(ensemble, Window.on_screen((-190.0, -20.0, -160.0, 10.0), 30, None, 10_000), never)
    np.testing.assert_allclose(seen.answer.values, here.answer.values, atol=2e-3)


def test_coastlines_are_no_finer_than_the_screen_and_stay_in_the_window() -> None:
    window = Window.on_screen((-12.0, 49.0, 3.0, 60.0), 600, None, 100_000)
    lines = coast(window)
    known = lines[np.isfinite(lines[:, 0])]
    assert 200 < len(known) < 6000
    assert known[:, 0].min() > -30 and known[:, 0].max() < 20
    globe = Window.on_screen((-180.0, -90.0, 180.0, 90.0), 900, None, 100_000)
    assert len(coast(globe)) < 40_000


def test_a_region_s_map_shows_all_of_it() -> None:
    lattice = Lattice(latitude=np.arange(58.0, 49.0, -1.0), longitude=np.arange(-10.0, 3.0, 1.0))
    assert whole_of(lattice) == (-10.0, 50.0, 2.0, 58.0)


# --- in the browser -------------------------------------------------------------------------------------------------


def until_drawn(page, before: str = "") -> str:
    """Wait for another map than `before`, and no sketch of it; how much of it is on the screen."""
    found = page.wait_for_function(
        """before => {
        const deep = root => [...root.querySelectorAll('*')]
            .flatMap(each => each.shadowRoot ? [each.shadowRoot, ...deep(each.shadowRoot)] : []);
        const text = deep(document).map(root => root.textContent).find(t => / on the screen/.test(t)
            && !/ on the screen.* on the screen/s.test(t)) || '';
        return text.includes('a sketch') || (before && text.includes(before)) ? '' : text; }""",
        arg=before,
    )
    return ON_SCREEN.search(found.json_value())[0]


def step_of(said: str) -> float:
    found = ON_SCREEN.search(said)
    assert found, said
    return float(found[3])


def test_a_person_looks_zooms_clicks_and_takes_it_away(page, explorer_at, model, globe, shot, tmp_path) -> None:
    started = time.monotonic()
    page.goto(explorer_at(model, globe))
    whole = until_drawn(page)
    assert time.monotonic() - started < 15  # 5 s on an idle machine; here others may be working
    shot(page, "downscale-1280")

    page.get_by_role("button", name="Zoom in").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    closer = until_drawn(page, whole)
    assert step_of(closer) < step_of(whole)

    page.evaluate("scrollTo(0, 0)")  # the button had the focus, and may have scrolled the map away
    maps = page.locator(".swipe-container").bounding_box()
    place = (maps["x"] + 0.7 * maps["width"], maps["y"] + 0.35 * maps["height"])
    page.mouse.move(*place)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(300)
    nearer = until_drawn(page, closer)
    assert step_of(nearer) < step_of(closer)

    said = asked_for(page, place)
    assert "coarse field" in said and "truth at its nearest point" in said

    for name in ("Spread", "Component", "Error of the mean"):
        page.get_by_label("Show", exact=True).select_option(name)
        caption = {
            "Spread": "Standard deviation of",
            "Component": "Most probable",
            "Error of the mean": "Mean less truth",
        }
        page.get_by_text(caption[name]).wait_for()
        shot(page, f"downscale-{name.split()[0].lower()}-1280")
    page.get_by_label("Show", exact=True).select_option("Spread")
    page.get_by_text("Standard deviation of").wait_for()

    files = {}
    for name in ("NetCDF of the window", "Coarse input (NetCDF)", "PNG of both maps"):
        with page.expect_download() as download:
            page.get_by_text(name).click()
        files[name] = Path(download.value.path())
    assert files["PNG of both maps"].read_bytes().startswith(b"\x89PNG")
    page.get_by_role("button", name="Copy the command").click()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["vamoh", "downscale"]
    words[3], words[4] = str(files["Coarse input (NetCDF)"]), str(tmp_path / "fine.nc")
    assert main(words[1:]) == 0
    with xr.open_dataset(tmp_path / "fine.nc") as made, xr.open_dataset(files["NetCDF of the window"]) as taken:
        assert dict(made.sizes) == dict(taken.sizes)
        np.testing.assert_allclose(made["t2m_spread"], taken["t2m_spread"], atol=2e-3)
        np.testing.assert_allclose(made["t2m"], taken["t2m"], atol=2e-3)


def test_it_fits_a_telephone_and_the_handle_moves_by_keyboard(page, explorer_at, model, globe, shot) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(explorer_at(model, globe))
    finest = until_drawn(page)
    while step_of(finest) >= 3:  # asked for before the page had laid out its map
        finest = until_drawn(page, finest)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    handle = page.locator(".noUi-handle").last
    before = page.locator("#after, [id^=after]").first.evaluate("element => element.style.clipPath")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert page.locator("#after, [id^=after]").first.evaluate("element => element.style.clipPath") != before
    assert handle.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
    shot(page, "downscale-400")
    page.get_by_label("Resolution", exact=True).select_option("Chosen with a slider")
    page.get_by_text("of 3.1° on the screen").wait_for()  # a quarter of the distance between coarse points


def test_a_dropped_file_is_downscaled_and_what_is_none_gets_a_sentence(
    page, explorer_at, model, shown, tmp_path, shot
) -> None:
    field = xr.DataArray(
        shown.given.coarse(np.arange(2))[:, :, :] - 273.15,
        dims=("time", "lat", "lon"),
        coords={
            "time": shown.given.times[:2],
            "lat": shown.given.lattice.latitude,
            "lon": shown.given.lattice.longitude,
        },
        attrs={"units": "degC"},
        name="tas",
    )
    path, junk = tmp_path / "mine.nc", tmp_path / "evil.nc"
    field.to_netcdf(path)
    junk.write_bytes(b"\x80\x04\x95 this would be a pickle")
    page.goto(explorer_at(model, None))
    page.get_by_text("Drop a NetCDF file").wait_for()
    page.locator("input[type=file]").set_input_files(junk)
    assert "evil.nc is no NetCDF file" in page.locator("p[role=alert]").inner_text()
    page.locator("input[type=file]").set_input_files(path)
    until_drawn(page)
    assert page.locator("p[role=alert]").count() == 0
    assert "mine.nc" in page.get_by_text("vamoh downscale").inner_text()
    page.get_by_label("Show", exact=True).select_option("Error of the mean")
    assert "the truth is not known" in page.locator("p[role=alert]").inner_text()
    shot(page, "downscale-error-1280")


def test_an_exported_page_pans_without_a_server(page, model, globe, tmp_path, shot) -> None:
    path = tmp_path / "page.html"
    export_page(str(model), str(globe), path)
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".html" or "tmp" in each.name] == ["page.html"]
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_page(str(model), str(globe), path)
    page.goto(path.as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    ranges = "Bokeh.documents[0].roots().map(each => [each.x_range.start, each.y_range.start])"
    before = page.evaluate(ranges)
    assert len(before) == 4
    canvas = page.locator("section").first.bounding_box()
    page.mouse.move(canvas["x"] + 300, canvas["y"] + 150)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(200)
    after = page.evaluate(ranges)
    assert all(new > old for (new, _), (old, _) in zip(after, before, strict=True))
    assert len({tuple(each) for each in after}) == 1
    shot(page, "export-1280")
