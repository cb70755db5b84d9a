"""Scores are those of the arrays themselves, on the samples that the split says, beside the baselines."""

import numpy as np
import pytest
import xarray as xr

import pipelines
from pipelines.data.climate import ingest
from pipelines.data.store import open_store
from pipelines.products import baselines, skill
from pipelines.products.downscale import downscale
from pipelines.products.evaluate import coarsened, evaluate, samples_of
from pipelines.products.field_products import reconstructed
from pipelines.products.spectra import zonal_spectrum
from pipelines.training.plan import split_of
from pipelines.training.registry import load_model


@pytest.fixture(scope="module")
def scored(trained) -> dict:
    return evaluate(str(trained.checkpoint), trained.store, members=4)


@pytest.fixture(scope="module")
def other_store(globe_store, tmp_path_factory) -> str:
    """The same fields and one more that was not seen, ten days after the last."""
    field = open_store(globe_store).field.load()
    later = field[-1:].assign_coords(time=field["time"][-1:] + np.timedelta64(10, "D"))
    longer = xr.concat([field, later], "time").assign_attrs(units="K").to_dataset(name="t2m")
    return ingest(longer, tmp_path_factory.mktemp("other") / "longer.zarr").path


def test_scores_are_those_of_the_members_themselves(scored, teller, truth) -> None:
    result = downscale(truth[:, ::3, ::3], teller, factor=3, members=4)["t2m"].compute()
    for key, weighted in (("scores", True), ("scores_unweighted", False)):
        assert scored[key]["vamoh"] == pytest.approx(skill.ensemble_scores(result, truth, weighted=weighted), rel=1e-5)
    assert scored["scores"]["vamoh"]["crps"] < scored["scores"]["vamoh"]["mae"]


def test_baselines_stand_beside(scored, truth, globe_store) -> None:
    plain, learn = ["bilinear", "bicubic", "conservative"], ["mean residual", "quantile mapping", "field ridge"]
    assert list(scored["scores"]) == ["vamoh", *plain, *learn, "local ridge"]
    coarse = truth[:, ::3, ::3]
    bilinear = baselines.bilinear(coarse, truth["latitude"].values, truth["longitude"].values)
    assert scored["scores"]["bilinear"] == pytest.approx(skill.point_scores(bilinear, truth), rel=1e-5)
    learned = open_store(globe_store).field[:18].load()
    mean = baselines.MeanResidual().fit(learned, learned[:, ::3, ::3]).predict(coarse)
    direct = skill.gaussian_scores(mean["mean"], mean["std"], truth)
    assert scored["scores"]["mean residual"] == pytest.approx(direct, rel=1e-5)


def test_what_was_scored_is_told(scored, trained, truth) -> None:
    told = {key: scored[key] for key in ("task", "split", "samples", "factor", "members", "seed", "units")}
    assert told == {
        "task": "downscaling",
        "split": "test",
        "samples": 6,
        "factor": 3,
        "members": 4,
        "seed": 0,
        "units": "K",
    }
    assert scored["fingerprint"] == open_store(trained.store).fingerprint
    assert scored["from"] == str(truth["time"].values[0])[:16]


def test_the_splits_of_the_training_store_are_those_of_training(trained, teller, globe_store) -> None:
    opened, plan = open_store(globe_store), teller.checkpoint.plan
    split = split_of(plan.config, opened)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(samples_of(opened, plan, name), split.named(name))
    assert len(samples_of(opened, plan, "all")) == 24
    with pytest.raises(ValueError, match="a split is train, validation, test or all"):
        evaluate(str(trained.checkpoint), globe_store, split="tests")


def test_another_store_is_tested_on_what_lies_outside_the_span_of_training(trained, other_store, globe_store) -> None:
    result = evaluate(str(trained.checkpoint), other_store, members=1)
    assert result["samples"] == 7
    assert "reference" in result["note"] and list(result["scores"]) == ["vamoh", "bilinear", "bicubic", "conservative"]
    with pytest.raises(ValueError, match="not the store that the model was trained on"):
        evaluate(str(trained.checkpoint), other_store, split="train")
    beside = evaluate(str(trained.checkpoint), other_store, members=1, reference=globe_store)
    assert "local ridge" in beside["scores"] and "note" not in beside


def test_a_store_inside_the_span_of_training_is_refused_as_a_test(trained, globe_store, tmp_path) -> None:
    part = open_store(globe_store).field[2:6].assign_attrs(units="K").load()
    inside = ingest(part.to_dataset(name="t2m"), tmp_path / "inside.zarr").path
    with pytest.raises(ValueError, match="use --split all"):
        evaluate(str(trained.checkpoint), inside)
    assert evaluate(str(trained.checkpoint), inside, split="all", members=1)["samples"] == 4


@pytest.mark.parametrize(("factor", "message"), [(46, "no grid"), (0, "at least 2"), (-3, "at least 2")])
def test_a_factor_that_leaves_no_grid_is_refused(trained, globe_store, factor, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(str(trained.checkpoint), globe_store, factor=factor)


def test_a_classic_model_is_scored_on_what_it_reconstructs(classic, globe_store, truth) -> None:
    result = pipelines.evaluate(str(classic.checkpoint), globe_store)
    assert result["task"] == "reconstruction and completion"
    assert list(result["scores"]) == ["vamoh", "vamoh, the encoder alone", "training mean"]
    checkpoint, network, _ = load_model(str(classic.checkpoint))
    again = reconstructed(network, checkpoint.plan, truth)
    assert again.shape == truth.shape and np.isfinite(again).all()
    alone = skill.point_scores(again, truth)
    assert result["scores"]["vamoh, the encoder alone"] == pytest.approx(alone, rel=1e-5)
    assert result["scores"]["vamoh"]["rmse"] < alone["rmse"]
    mean = open_store(globe_store).field[:18].mean("time").load().broadcast_like(truth).transpose(*truth.dims)
    assert result["scores"]["training mean"] == pytest.approx(skill.point_scores(mean, truth), rel=1e-5)


def test_a_classic_model_leaves_the_training_mean_out_where_it_is_not_known(classic, other_store) -> None:
    alone = list(evaluate(str(classic.checkpoint), other_store)["scores"])
    assert alone == ["vamoh", "vamoh, the encoder alone"]


def test_every_nth_point_is_a_coarser_output_scored_on_the_points_it_has(trained, teller, truth) -> None:
    scored = evaluate(str(trained.checkpoint), trained.store, factor=4, every=2, members=2)
    result = downscale(truth[:, ::4, ::4], teller, like=truth[:, ::2, ::2], members=2)["t2m"].compute()
    assert scored["scores"]["vamoh"] == pytest.approx(skill.ensemble_scores(result, truth[:, ::2, ::2]), rel=1e-5)
    learned = open_store(trained.store).field[:18].load()
    ridge = baselines.LocalRidge().fit(learned[:, ::2, ::2], learned[:, ::4, ::4]).predict(truth[:, ::4, ::4])
    direct = skill.gaussian_scores(ridge["mean"], ridge["std"], truth[:, ::2, ::2])
    assert scored["scores"]["local ridge"] == pytest.approx(direct, rel=1e-5)


@pytest.mark.parametrize("every", [0, 3, 4])
def test_points_that_the_factor_does_not_share_are_refused(trained, every) -> None:
    with pytest.raises(ValueError, match="must divide the factor 4"):
        evaluate(str(trained.checkpoint), trained.store, factor=4, every=every)


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory) -> tuple[dict, str]:
    path = tmp_path_factory.mktemp("page") / "scores.html"
    result = evaluate(str(trained.checkpoint), trained.store, members=8, factor=4, curve=(2, 4, 45), report=path)
    return result, path.read_text()


def test_the_curve_has_a_row_for_every_input_that_leaves_a_grid_and_for_coarser_outputs(page, trained, teller) -> None:
    rows = {(row["factor"], row["every"]): row for row in page[0]["curve"]}
    assert list(rows) == [(2, 1), (4, 1), (4, 2)]
    assert [row["trained"] for row in rows.values()] == [False, False, False]  # it learned from every third point
    assert rows[4, 1]["input_km"] == pytest.approx(4 * rows[4, 2]["output_km"] / 2)
    for row in rows.values():
        assert list(row["rmse"]) == ["vamoh", "bilinear", "bicubic", "field ridge", "local ridge"]
    own = evaluate(str(trained.checkpoint), trained.store, members=8, factor=2, curve=(3,))
    assert own["curve"][0]["trained"]
    assert rows[2, 1]["rmse"]["vamoh"] == pytest.approx(own["scores"]["vamoh"]["rmse"], rel=1e-6)
    assert rows[2, 1]["crps"]["local ridge"] == pytest.approx(own["scores"]["local ridge"]["crps"], rel=1e-6)
    assert rows[2, 1]["rmse"]["bilinear"] < rows[4, 1]["rmse"]["bilinear"]


def test_scales_and_ranks_are_those_of_the_members_themselves(page, teller, truth) -> None:
    result = page[0]
    members = downscale(truth[:, ::4, ::4], teller, like=truth, members=8)["t2m"].compute()
    power = np.array(result["scales"]["power"]["vamoh members"])
    direct = zonal_spectrum(members.drop_vars([name for name in members.coords if name not in members.dims]))
    np.testing.assert_allclose(power, direct.values, rtol=1e-3)
    ratio = power / np.array(result["scales"]["power"]["truth"])
    judged = np.array(result["scales"]["wavelength_km"]) >= result["scales"]["judged_from_km"]
    assert 0 < judged.sum() < len(judged)
    assert result["scales"]["members_over_truth"]["lowest"] == pytest.approx(ratio[judged].min())
    assert set(result["scales"]["effective_km"]) == set(result["scores"])
    assert len(result["reliability"]["rank_counts"]) == 5 and sum(result["reliability"]["rank_counts"]) == truth.size
    assert result["reliability"]["cases"] < truth.size / 16 * 2


def test_the_page_shows_what_the_scores_say(page) -> None:
    result, text = page
    for title in ("One field, before and after", "Power at every wavelength", "Where truth lies", "Skill over resol"):
        assert title in text
    assert f"{result['scores']['vamoh']['rmse']:.3f}" in text
    assert f"chi-square of the ranks, {result['reliability']['cases']} cases" in text
    assert "(not trained on)" in text and "conservative" in text


def test_a_model_of_cell_means_is_given_cell_means(truth) -> None:
    means = coarsened(truth, 4, means=True)
    assert means.attrs["cell_methods"] == "area: mean" and means.sizes["longitude"] == 22
    band = np.repeat(skill.area_weights(truth["latitude"].values).values[4:8], 4)
    by_hand = np.average(truth[0, 4:8, 8:12].values.ravel(), weights=band)
    assert float(means[0, 1, 2]) == pytest.approx(by_hand, abs=1e-3)
    np.testing.assert_array_equal(coarsened(truth, 4), truth[:, ::4, ::4])


def test_window_attention_stands_beside_where_it_is_given_time(trained) -> None:
    scored = evaluate(str(trained.checkpoint), trained.store, members=1, attention=1.0)
    assert list(scored["scores"])[-1] == "window attention"
    assert scored["reliability"] is None  # one member has no ranks


def test_what_is_of_downscaling_alone_is_refused_for_a_classic_model(classic, globe_store) -> None:
    with pytest.raises(ValueError, match="--factor, --curve: only of a model that downscales"):
        evaluate(str(classic.checkpoint), globe_store, factor=4, curve=(2,))
