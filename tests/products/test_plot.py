"""Figures are complete, true to place, and need neither pyplot nor a network."""

import io
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from pipelines.products import plot, score_charts
from pipelines.products.coastlines import coastlines, coastlines_within
from pipelines.products.plot import Panel
from pipelines.products.projection import cut_at_date_line, equal_earth
from pipelines.products.spectra import zonal_spectrum


def pixels(figure: Figure) -> np.ndarray:
    """The figure as drawn, (height, width, 4) in 0..255."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=60)
    width, height = (int(inches * 60) for inches in figure.get_size_inches())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)


def mesh(figure: Figure, index: int) -> QuadMesh:
    return next(c for c in figure.axes[index].collections if isinstance(c, QuadMesh))


def test_coastlines_are_on_the_map_of_the_world() -> None:
    lines = coastlines()
    finite = lines[np.isfinite(lines[:, 0])]
    assert np.abs(finite[:, 0]).max() <= 180
    assert -86 < finite[:, 1].min() < -84  # the edge of Antarctica's ice, not the pole
    step = np.abs(np.diff(lines, axis=0))
    assert np.nanmax(step[:, 0]) < 10  # no line runs across the map at the date line
    for name, longitude, latitude in [("Land's End", -5.72, 50.07), ("Cape Agulhas", 20.0, -34.83)]:
        distance = np.hypot(finite[:, 0] - longitude, finite[:, 1] - latitude).min()
        assert distance < 0.1, name


def test_coastlines_follow_the_longitudes_of_the_map() -> None:
    lines = coastlines_within(165.0, 195.0)
    chatham = np.hypot(lines[:, 0] - 183.5, lines[:, 1] + 43.95)  # 176.5 W
    assert np.nanmin(chatham) < 0.3


def test_equal_earth_keeps_areas() -> None:
    def area(west: float, east: float, south: float, north: float) -> float:
        t = np.linspace(0, 1, 400)
        longitude = np.concatenate([west + (east - west) * t, 0 * t + east, east + (west - east) * t, 0 * t + west])
        latitude = np.concatenate(
            [0 * t + south, south + (north - south) * t, 0 * t + north, north + (south - north) * t]
        )
        x, y = equal_earth(longitude, latitude)
        return float(0.5 * np.abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))

    for box in [(0, 10, 0, 10), (-170, -150, 60, 80), (100, 130, -40, -20)]:
        west, east, south, north = box
        exact = np.deg2rad(east - west) * (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south)))
        assert area(*box) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("first", [0.0, 0.5, -180.0, -179.5, -180.25, 2.0])
def test_the_cell_at_the_date_line_is_drawn_on_both_sides(first: float) -> None:
    longitude = first + np.arange(0.0, 360.0, 4.0)
    edges, values = cut_at_date_line(longitude, np.sin(np.deg2rad(longitude))[None])
    assert edges[0] == -180.0
    assert edges[-1] == 180.0
    assert np.all(np.diff(edges) > 0)
    assert values.shape == (1, edges.size - 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    np.testing.assert_allclose(values[0], np.sin(np.deg2rad(centres)), atol=np.sin(np.deg2rad(2.0)) + 1e-9)


def test_a_comparison_of_real_global_fields_draws_every_panel(globe: xr.DataArray) -> None:
    truth = globe[20]
    figure = plot.comparison(
        truth[::4, ::4],
        truth + 1.0,
        truth=truth,
        spread=abs(truth - 280).assign_attrs(units="K"),
        component=(truth > 273).astype(float) + (truth > 290),
        title="31 March 2026",
    )
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles[0] == "Coarse input, 46 × 90"
    assert titles[3] == "Error: downscaled mean minus truth"
    labels = [axes.get_xlabel() for axes in figure.axes[6:]]
    assert labels == ["2 m temperature (K)"] * 3 + ["error (K)", "standard deviation (K)", "component"]
    image = pixels(figure)
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 200


def test_panels_of_one_scale_share_their_colours_and_errors_are_centred(globe: xr.DataArray) -> None:
    field = globe[0]
    figure = plot.maps(
        [
            Panel(field=field[::4, ::4], title="a", scale="t"),
            Panel(field=field + 5, title="b", scale="t"),
            Panel(field=field, title="c"),
            Panel(field=field - 270, title="d", kind="error"),
        ]
    )
    limits = [(mesh(figure, k).norm.vmin, mesh(figure, k).norm.vmax) for k in range(4)]
    assert limits[0] == limits[1] != limits[2]
    low, high = limits[3]
    assert isinstance(high, float)
    assert low == -high


def test_a_region_is_drawn_where_it_lies(uk_hours: xr.DataArray) -> None:
    """Over the sea west of Ireland and over Wales the colours at a place are those of its own value."""
    field = uk_hours[15]
    figure = plot.maps([Panel(field=field, title="UK"), Panel(field=field[::4, ::4], title="coarse")])
    figure.draw_without_rendering()
    drawn = mesh(figure, 0)
    corners = np.asarray(drawn.get_coordinates())
    assert tuple(corners[0, 0]) == (-10.125, 58.125)
    assert tuple(corners[-1, -1]) == (2.125, 49.875)
    np.testing.assert_array_equal(np.asarray(drawn.get_array()), field.values)
    assert figure.axes[1].get_xlim() == figure.axes[0].get_xlim() == (-10.125, 2.125)
    assert {"9°W", "6°W", "0°"} <= {label.get_text() for label in figure.axes[0].get_xticklabels()}


def test_missing_values_are_grey(uk_hours: xr.DataArray) -> None:
    figure = plot.maps([Panel(field=uk_hours[0].where(uk_hours[0] > 400), title="nothing observed")])
    grey = np.all(pixels(figure)[..., :3] == 0xD9, axis=-1)
    assert grey.mean() > 0.3


def test_a_field_with_other_dims_is_refused(uk_hours: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="'all hours' needs the dims latitude and longitude.*select one time"):
        plot.maps([Panel(field=uk_hours, title="all hours")])
    with pytest.raises(ValueError, match="at least one panel"):
        plot.maps([])


def test_spectra_run_from_large_scales_to_small_on_logarithmic_axes(globe: xr.DataArray) -> None:
    truth = zonal_spectrum(globe[:2])
    figure = plot.spectra({"Truth": truth, "VAMoH": 0.9 * truth, "gone": np.nan * truth}, coarse_wavelength_km=890.0)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert axes.get_xlabel() == "Zonal wavelength (km)"
    assert axes.get_ylabel() == "Power spectral density (K² km)"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Truth", "VAMoH", "gone"]
    assert pixels(figure).std() > 0


def test_curves_group_the_terms_of_the_bound() -> None:
    epoch = np.arange(5)
    history = xr.Dataset(
        {"reconstruction": ("epoch", -1.0 * epoch), "kl_z": ("epoch", 0.1 * epoch), "kl_c": ("epoch", 0.2 * epoch)},
        coords={"epoch": epoch},
    )
    assert len(plot.curves(history).axes) == 3
    figure = plot.curves(history, groups={"KL": ["kl_z", "kl_c"]}, title="History")
    assert len(figure.axes[0].lines) == 2
    with pytest.raises(ValueError, match="without variables"):
        plot.curves(xr.Dataset())


def test_neither_pyplot_nor_cartopy_nor_torch_is_imported() -> None:
    modules = "'matplotlib.pyplot', 'cartopy', 'torch'"
    code = f"import sys, pipelines.products.plot, pipelines.products.report; print({{{modules}}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- charts of scores ----------------------------------------------------------------------------------------------


def test_power_is_drawn_over_that_of_truth() -> None:
    power = {"truth": [8.0, 4.0, 2.0], "ours": [8.0, 4.4, 1.0], "bilinear": [4.0, 1.0, 0.1], "unasked": [1.0, 1.0, 1.0]}
    figure = score_charts.power_ratios(
        [400.0, 200.0, 100.0], power, names=["ours", "bilinear", "absent"], judged_from_km=150.0, coarse_km=250.0
    )
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 3}
    assert list(drawn) == ["ours", "bilinear"]
    np.testing.assert_allclose(drawn["ours"], [1.0, 1.1, 0.5])
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # large scales on the left, as in the spectra
    assert {text.get_text().strip() for text in axes.texts} == {"< 3 cells", "the coarse input ends here"}
    assert pixels(figure)[..., :3].std() > 10


def test_a_flat_rank_histogram_has_bars_of_one() -> None:
    (axes,) = score_charts.ranks([5, 5, 5, 5]).axes
    assert [bar.get_height() for bar in axes.patches] == [1.0] * 4
    (axes,) = score_charts.ranks([30, 0, 0, 10]).axes
    assert axes.get_ylim()[1] > 3.0 == axes.patches[0].get_height()


def test_skill_is_drawn_over_input_and_output_spacing() -> None:
    def row(factor: int, every: int, ours: float) -> dict:
        places = {"factor": factor, "every": every, "input_km": 20.0 * factor, "output_km": 20.0 * every}
        return {**places, "trained": factor == 4, "rmse": {"vamoh": ours, "bilinear": 2 * ours}}

    rows = [row(2, 1, 0.2), row(8, 1, 0.6), row(4, 1, 0.3), row(4, 2, 0.25)]
    left, right = score_charts.skill_curves(rows).axes
    ours = {axes: next(line for line in axes.lines if line.get_label() == "vamoh") for axes in (left, right)}
    np.testing.assert_allclose(ours[left].get_xydata(), [[40, 0.2], [80, 0.3], [160, 0.6]])
    np.testing.assert_allclose(ours[right].get_xydata(), [[20, 0.3], [40, 0.25]])
    assert len(score_charts.skill_curves(rows[:3]).axes) == 1
