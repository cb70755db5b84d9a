"""The tab Complete: what is drawn is what is missing, what was seen is kept, and the command gives the same."""

import shlex

import numpy as np
import pytest
import xarray as xr

from infra.cli import main
from infra.explorer.completing.canvas import polygon_of
from infra.explorer.completing.holes import SIDES, beyond, half, inside, normal_of, rectangle
from infra.explorer.completing.inputs import as_file, file_name, holed, labels_of, punched, sample_of
from infra.explorer.completing.shown import mean_of, planar, spread_of, summary
from infra.explorer.imagining.planes import Frame
from infra.explorer.imagining.solids import ADDED, STONE, by_origin, by_spread
from pipelines.data.box import Box
from pipelines.data.store import open_store
from pipelines.products.image_inputs import read_pictures
from pipelines.products.shape_inputs import read_shapes


def grid(rows: int = 9, columns: int = 13) -> xr.DataArray:
    """A region whose latitudes go down, as a store has them."""
    return xr.DataArray(
        np.arange(rows * columns, dtype=np.float32).reshape(1, rows, columns),
        dims=("time", "latitude", "longitude"),
        coords={"latitude": np.linspace(58, 50, rows), "longitude": np.linspace(-10, 2, columns)},
        attrs={"units": "K"},
    )


def crossings(place: tuple[float, float], polygon: np.ndarray) -> bool:
    """Whether a place lies in a polygon, by how often a ray from it crosses the edges."""
    x, y = place
    odd = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


def test_a_drawn_hole_masks_exactly_the_points_inside() -> None:
    frame, rng = Frame.of(grid()), np.random.default_rng(0)
    for corners in (3, 5, 9):  # some of them cross themselves
        polygons = [rng.uniform((-11, 49), (3, 59), size=(corners, 2)) for _ in range(2)]
        found = inside(polygons, frame)
        for row, latitude in enumerate(frame.down):
            for column, longitude in enumerate(frame.across):
                place = (float(longitude), float(latitude))
                assert found[row, column] == any(crossings(place, polygon) for polygon in polygons)


def test_a_box_masks_its_points_whichever_way_it_was_drawn() -> None:
    frame = Frame.of(grid())
    told = {"type": "rect", "x0": -4.5, "x1": 0.5, "y0": 51.5, "y1": 54.5}
    one = inside([polygon_of(told)], frame)
    other = inside([rectangle(0.5, -4.5, 54.5, 51.5)], frame)
    np.testing.assert_array_equal(one, other)
    rows, columns = (grid()["latitude"] > 51.5) & (grid()["latitude"] < 54.5), abs(grid()["longitude"] + 2) < 2.5
    np.testing.assert_array_equal(one, rows.values[:, None] & columns.values)
    lasso = {"type": "poly", "x": {"0": 0.5, "1": -4.5, "2": -4.5}, "y": {"0": 51.5, "1": 51.5, "2": 54.5}}
    assert polygon_of(lasso).tolist() == [[0.5, 51.5], [-4.5, 51.5], [-4.5, 54.5]]
    assert not inside([], frame).any()


@pytest.mark.parametrize("on_earth", [True, False])
def test_opposite_halves_share_the_grid_between_them(on_earth: bool) -> None:
    frame = Frame.of(grid(8, 12)[0] if on_earth else xr.DataArray(np.zeros((8, 12)), dims=("y", "x")))
    for one, other in (SIDES[on_earth][:2], SIDES[on_earth][2:]):
        first, second = half(frame, one, 0.5), half(frame, other, 0.5)
        assert (first ^ second).all() and first.sum() == second.sum()
        assert half(frame, one, 0.25).sum() == first.sum() / 2
    top = half(frame, SIDES[on_earth][2], 0.5)
    assert top[0].all() and not top[-1].any()  # the first row is the northern one, or the upper one
    assert half(frame, SIDES[on_earth][0], 0.5)[0, -1]
    with pytest.raises(ValueError, match="a side is one of"):
        half(frame, "inside", 0.5)


def test_a_plane_parts_a_shape() -> None:
    box = Box((6, 6, 6))
    upper = beyond(box, normal_of("z", 0), 0.0, above=True)
    assert upper[..., 3:].all() and not upper[..., :3].any()
    np.testing.assert_array_equal(~upper, beyond(box, normal_of("z", 0), 0.0, above=False))
    tilted = normal_of("y", 45)
    np.testing.assert_allclose(tilted, [0, np.sqrt(0.5), np.sqrt(0.5)])
    assert beyond(box, tilted, 0.0, above=True)[0, 5, 5] and not beyond(box, tilted, 0.0, above=True)[0, 0, 0]
    assert not beyond(box, tilted, 1.5, above=True).any()


def test_nothing_missing_and_nothing_left_are_refused() -> None:
    sample = grid()
    for missing, said in ((False, "nothing is missing yet"), (True, "nothing is left")):
        with pytest.raises(ValueError, match=said):
            holed(sample, np.full(sample.shape[1:], missing))


def test_the_file_that_is_handed_out_is_read_as_what_was_left(tmp_path) -> None:
    rng = np.random.default_rng(0)
    missing = rng.random((5, 5, 5)) < 0.3
    chair = xr.DataArray((rng.random((1, 5, 5, 5)) < 0.5).astype(np.float32), dims=("shape", "x", "y", "z"))
    path = tmp_path / file_name("cube")
    path.write_bytes(as_file(holed(chair, missing), "cube").read())
    np.testing.assert_array_equal(read_shapes(str(path)).values, punched(chair, missing).values)
    picture = xr.DataArray(rng.integers(0, 256, (1, 5, 6, 3)).astype(np.float32), dims=("image", "y", "x", "channel"))
    gone = rng.random((5, 6)) < 0.3
    path.write_bytes(as_file(holed(picture, gone), "plane").read())
    np.testing.assert_array_equal(read_pictures(str(path), channels=3).values, punched(picture, gone).values)


def test_the_spread_is_that_of_the_completions() -> None:
    rng = np.random.default_rng(0)
    made = xr.DataArray(
        rng.normal(280, 2, (1, 5, 4, 6)),
        dims=("time", "realization", "latitude", "longitude"),
        coords={"latitude": np.arange(50.0, 54.0), "longitude": np.arange(6.0)},
        attrs={"units": "K"},
    )
    seen = np.zeros((4, 6), dtype=bool)
    seen[:, :3] = True
    made.values[:, :, seen] = 280.0
    np.testing.assert_allclose(spread_of(made), made.values[0].std(axis=0, ddof=1))
    truth = xr.DataArray(np.full((1, 4, 6), 280.0), dims=("time", "latitude", "longitude"))
    told = summary(made, truth, seen)
    wrong = np.sqrt(((mean_of(made).values - 280.0)[~seen] ** 2).mean())
    assert told.startswith("12 of 24 places were missing") and f"wrong by {wrong:.3g} K" in told
    assert "differ there by 0." in told
    assert not spread_of(made[:, :1]).any()
    assert "standard deviation" not in summary(made[:, :1], truth, seen)  # one has none
    assert [figure is None for figure in planar(made[:, :1], 0)] == [False, True, True]


def test_what_was_added_to_a_shape_is_told_from_what_was_kept() -> None:
    box = Box((12, 12, 12))
    ball = (np.linalg.norm(box.coords, axis=-1).reshape(box.shape) < 0.7).astype(np.float32)
    seen = np.broadcast_to(box.axes[2] < 0, box.shape)
    trace = by_origin(ball, seen, title="A ball")["data"][0]
    assert [colour for _, colour in trace["colorscale"]] == [STONE, STONE, ADDED, ADDED]
    height = trace["z"][np.stack([trace[key] for key in "ijk"], axis=-1)].mean(axis=1)
    clear = np.abs(height) > 0.2
    np.testing.assert_array_equal(trace["intensity"][clear], (height > 0)[clear].astype(np.float32))
    spread = np.broadcast_to((0.25 * (box.axes[2] + 1)).astype(np.float32), box.shape)
    painted = by_spread(ball, spread, title="A ball")["data"][0]
    np.testing.assert_allclose(painted["intensity"], 0.25 * (painted["z"] + 1), atol=0.03)


def test_every_sample_of_a_store_can_be_chosen(globe) -> None:
    store = open_store(str(globe))
    labels = labels_of(store)
    assert list(labels.values()) == list(range(24)) and next(iter(labels)).startswith("2026-03-25")
    np.testing.assert_array_equal(sample_of(store, 5)[0], store.field[5])


# --- in the browser -------------------------------------------------------------------------------------------------


def shown_after(page, told: str) -> list[str]:
    """The words of the command that stands under a sentence."""
    return shlex.split(page.locator(f"p:has-text('{told}') + pre").inner_text())


def drag(page, *, across: tuple[float, float], down: tuple[float, float]) -> None:
    """Draw a box on the first figure that is to be seen, in shares of it."""
    box = page.locator(".bk-Figure:visible").first.bounding_box()
    (left, right), (top, bottom) = across, down
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=4)
    page.mouse.up()


def test_a_person_draws_a_hole_in_a_field_and_the_command_fills_it_alike(
    page, explorer_at, classic, globe, shot, tmp_path, monkeypatch, tracked
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    page.goto(explorer_at(classic, globe))
    page.get_by_role("button", name="Complete", exact=True).click()
    page.get_by_label("Sample of the store").select_option(index=20)
    page.get_by_role("button", name="Drawn holes").click()
    page.get_by_text("Drag on the map").wait_for()
    page.get_by_role("button", name="Complete", exact=True).last.click()
    page.get_by_text("nothing is missing yet: draw a hole").wait_for()
    drag(page, across=(0.3, 0.5), down=(0.2, 0.5))
    page.get_by_role("alert").wait_for(state="hidden")
    with page.expect_download() as begun:
        page.get_by_text("Download what was left").click()
    begun.value.save_as(tmp_path / "gaps.nc")
    missing = np.isnan(xr.open_dataset(tmp_path / "gaps.nc")["t2m"].values[0])
    rows, columns = np.nonzero(missing)
    assert missing.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) > 100  # it is a box
    assert rows.mean() < 22 and columns.mean() < 40  # where it was drawn, in the north-west
    page.get_by_role("button", name="Complete", exact=True).last.click()
    page.get_by_text(f"{missing.sum()} of 4,140 places were missing").wait_for()
    shot(page, "complete-1280")
    with page.expect_download() as begun:
        page.get_by_text("Download the completions").click()
    begun.value.save_as(tmp_path / "shown.nc")
    command = shown_after(page, "With the file of")
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    shown, told = xr.open_dataset("shown.nc")["t2m"], xr.open_dataset("completed.nc")["t2m"]
    np.testing.assert_allclose(shown, told, atol=1e-3)
    kept = open_store(str(globe)).field[20].values[~missing]
    assert np.abs(shown.values[0, :, ~missing].T - kept).max() < 1e-3


def test_a_chair_is_cut_and_completed_on_a_page_of_400_pixels(
    page, explorer_at, chair_model, chairs, shot, monkeypatch, tracked
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(explorer_at(chair_model, chairs))
    page.get_by_role("button", name="Complete", exact=True).click()
    page.get_by_label("Cut across the axis").select_option("x")
    page.locator(".js-plotly-plot canvas:visible").first.wait_for()
    page.get_by_role("button", name="Complete", exact=True).last.click()
    page.get_by_text("2,048 of 4,096 places were missing").wait_for()
    page.wait_for_function("document.documentElement.scrollWidth <= 400")
    shot(page, "complete-400")
