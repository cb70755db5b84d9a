"""The tab Imagine: samples, the way between two of them, shapes that turn, and files that the command writes too."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import xarray as xr
from scipy import stats

from infra.cli import main
from infra.explorer.imagining.gallery import SIDE, gallery, tiles_of
from infra.explorer.imagining.planes import DRAWN, Frame, even, plane, redraw, rgb_of
from infra.explorer.imagining.scales import scale_of
from infra.explorer.imagining.solids import by_component, component_of, with_plane
from pipelines.data.box import Box
from pipelines.data.sphere import Lattice
from pipelines.products import generate
from pipelines.products.solids import mesh_of


def field(rows: int = 5, columns: int = 8, *, upwards: bool = False) -> xr.DataArray:
    """Kelvin over a region, warmer to the north and east."""
    latitude = np.linspace(50.0, 58.0, rows)[:: 1 if upwards else -1]
    longitude = np.linspace(-10.0, 4.0, columns)
    return xr.DataArray(
        (270 + latitude[:, None] + 0.1 * longitude).astype(np.float32),
        dims=("latitude", "longitude"),
        coords={"latitude": latitude, "longitude": longitude},
        attrs={"units": "K", "long_name": "2 metre temperature"},
    )


def ball(size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A solid ball [x, y, z], of component 2 above and 1 below."""
    box = Box((size, size, size))
    radius = np.linalg.norm(box.coords, axis=-1).reshape(box.shape)
    parts = np.broadcast_to((box.axes[2] > 0).astype(np.uint8), box.shape)
    return 1 / (1 + np.exp(12 * (radius - 0.6))), parts


def test_the_way_ends_at_the_two_latents_and_every_place_on_it_is_as_probable() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 20_000, 6, generator=generator)
    assert torch.equal(generate.on_circle(one, other, 0.0), one)
    assert torch.equal(generate.on_circle(one, other, 1.0), other)
    for share in (0.2, 0.5, 0.8):
        squares = generate.on_circle(one, other, share).square().sum(dim=-1).numpy()
        assert stats.kstest(squares, stats.chi2(6).cdf).pvalue > 1e-3
    line = 0.5 * (one + other)  # what a straight line would do
    assert stats.kstest(line.square().sum(dim=-1).numpy(), stats.chi2(6).cdf).pvalue < 1e-12


def test_the_ends_of_the_way_are_samples(classic) -> None:
    samples = generate.sample(str(classic), number=4, seed=3)["t2m"]
    way = generate.between(str(classic), 1, 3, [0.0, 0.4, 1.0], seed=3)
    np.testing.assert_allclose(way["t2m"][0], samples[1], atol=1e-4)
    np.testing.assert_allclose(way["t2m"][2], samples[3], atol=1e-4)
    assert not np.allclose(way["t2m"][1], samples[1], atol=1e-3)
    assert way["share"].values.tolist() == [0.0, 0.4, 1.0]
    still = generate.between(str(classic), 1, 1, [0.5], seed=3)["t2m"]  # from a sample to itself it is no way
    np.testing.assert_allclose(still[0], samples[1], atol=1e-4)
    with pytest.raises(ValueError, match="numbered from 0"):
        generate.between(str(classic), 0, 1, [1.5])


@pytest.mark.parametrize("between", ["0", "0,x", "a,b,c"])
def test_a_way_that_is_none_is_refused_in_one_line(classic, tmp_path: Path, capsys, between: str) -> None:
    assert main(["sample", str(classic), str(tmp_path / "way.nc"), "--between", between]) == 2
    assert "--between expects two samples such as 0,3" in capsys.readouterr().err


@pytest.mark.parametrize("upwards", [False, True])
def test_a_map_has_its_values_at_their_places_whichever_way_its_latitudes_go(upwards: bool) -> None:
    given = field(upwards=upwards)
    drawn = plane(given, title="A field").select_one({"name": DRAWN})
    (image,) = drawn.data_source.data["image"]
    assert image[0, 0] == given.sel(latitude=50, longitude=-10) and image[-1, -1] == given.sel(latitude=58, longitude=4)
    assert (drawn.glyph.x, drawn.glyph.y) == (-11.0, 49.0) and (drawn.glyph.dw, drawn.glyph.dh) == (16.0, 10.0)


def test_other_values_keep_the_colours() -> None:
    chart = plane(field(), title="A field")
    mapper = chart.select_one({"name": DRAWN}).glyph.color_mapper
    low, high = mapper.low, mapper.high
    redraw(chart, field().where(field()["longitude"] < 0))
    (image,) = chart.select_one({"name": DRAWN}).data_source.data["image"]
    assert np.isnan(image[:, -1]).all() and (mapper.low, mapper.high) == (low, high)
    assert chart.xaxis[0].axis_label == "Longitude (degrees east)" and "K" in chart.below[-1].title


def test_latitudes_that_are_not_even_are_drawn_where_they_are() -> None:
    centres = np.array([0.0, 1.0, 4.0])
    wanted = np.linspace(0.0, 4.0, 12)
    nearest = np.abs(wanted[:, None] - centres).argmin(axis=1)
    np.testing.assert_array_equal(even(centres), nearest)


def test_what_is_missing_of_a_picture_is_transparent() -> None:
    picture = np.full((2, 3, 1), 99.0)
    picture[1, 2] = np.nan
    colours = rgb_of(picture)
    assert colours[0, 0].tolist() == [99, 99, 99, 255] and colours[1, 2, 3] == 0
    assert Frame.of(xr.DataArray(picture, dims=("y", "x", "channel"))).top == 0


def test_a_triangle_has_the_colour_of_its_component() -> None:
    probability, parts = ball()
    figure = by_component(probability, parts, 2, title="A ball")
    trace = figure["data"][0]
    height = trace["z"][np.stack([trace[key] for key in "ijk"], axis=-1)].mean(axis=1)
    clear = np.abs(height) > 0.1
    np.testing.assert_array_equal(trace["intensity"][clear], (height > 0)[clear].astype(np.float32))
    mesh = mesh_of(probability, parts)
    assert set(component_of(mesh)) == {0, 1}
    cut = with_plane(figure, np.array([0.0, 0.0, 1.0]), 0.25)
    assert len(cut["data"]) == 2 and set(cut["data"][1]["z"]) == {np.float32(0.25)} and len(figure["data"]) == 1


def test_the_gallery_shows_every_sample() -> None:
    several = xr.concat([field(), field() + 5], "sample")
    html = gallery(several, several)
    assert html.count("<img") == 2 and 'alt="Sample 1"' in html and "http" not in html
    probability, parts = ball(12)
    dims = ("shape", "x", "y", "z")
    (tile,) = tiles_of(xr.DataArray(probability[None], dims=dims), xr.DataArray(parts[None], dims=dims))
    assert tile.shape == (SIDE, SIDE, 3) and (tile[0, 0] == 255).all() and (tile[SIDE // 2, SIDE // 2] < 255).any()


def test_the_resolution_begins_with_that_of_the_training_data() -> None:
    lattice = Lattice(latitude=np.arange(58.0, 49.75, -0.25), longitude=np.arange(-10.0, 2.25, 0.25))
    for scale in (scale_of(lattice), scale_of(Box((30, 30, 30))), scale_of(Box((28, 28)))):
        widget = scale.widget()
        assert scale.value(widget) is None and scale.option(widget) == []
        widget.value = scale.steps[-1][1]
        assert scale.option(widget)[0] == "--resolution"
    assert scale_of(lattice).steps[1] == ("0.25", 0.25)


# --- in the browser -------------------------------------------------------------------------------------------------


def command_after(page, told: str) -> list[str]:
    """The words of the command that stands under a sentence."""
    return shlex.split(page.locator(f"p:has-text('{told}') + pre").inner_text())


def test_a_person_samples_chairs_goes_from_one_to_another_and_takes_it_away(
    page, explorer_at, chair_model, shot, tmp_path, monkeypatch, tracked
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    page.goto(explorer_at(chair_model, None))
    page.get_by_role("button", name="Imagine").click()
    page.get_by_alt_text("Sample 7").wait_for()
    page.get_by_text("16 × 16 × 16, probability of being solid").wait_for()
    page.locator(".js-plotly-plot canvas").first.wait_for()
    page.get_by_label("On the way to sample").select_option("2")
    page.get_by_role("slider").nth(1).focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.get_by_text("--between 0,2,0.4").wait_for()
    page.get_by_role("slider").nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("24 × 24 × 24").wait_for()
    shot(page, "imagine-1280")
    with page.expect_download() as begun:
        page.get_by_text("Download what is shown").click()
    mesh = trimesh.load(begun.value.path(), file_type="ply")
    command = command_after(page, "What is shown:")
    assert command[:2] == ["vamoh", "sample"] and command[-2:] == ["--resolution", "24"]
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    same = trimesh.load(tmp_path / command[3])
    np.testing.assert_allclose(mesh.vertices, same.vertices, atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, same.faces)


def test_fields_are_imagined_on_a_page_of_400_pixels(page, explorer_at, classic, shot, tracked, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(explorer_at(classic, None))
    page.get_by_role("button", name="Imagine").click()
    page.get_by_text("2 metre temperature").first.wait_for()
    page.get_by_role("button", name="Component").click()
    page.get_by_text("coloured by the most probable component").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    shot(page, "imagine-400")
    assert not Path("imagined.nc").exists()
