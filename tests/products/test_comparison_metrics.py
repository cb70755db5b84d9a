"""Laws of what models are compared by: sets that are equal or far apart, spectra and densities of closed form."""

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.data.domain import kind_of
from pipelines.data.store import open_store
from pipelines.products import comparison_paper
from pipelines.products.comparison_entry import Entry, entries
from pipelines.products.comparison_metrics import METRICS, best, shown
from pipelines.products.comparison_samples import FieldFeatures, energy, log_spectral_distance
from pipelines.products.image_distributions import precision_and_recall
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.registry import load_model
from tests.products.tiny_peers import plan_of
from vamoh.systems import new_model

AREA = np.array([0.1, 0.2, 0.3, 0.4])


def test_a_set_has_full_precision_and_recall_of_itself_and_none_of_one_far_away() -> None:
    rng = np.random.default_rng(0)
    training, fields = (rng.normal(size=(40, 4)).astype(np.float32) for _ in range(2))
    features = FieldFeatures.of(training, AREA)
    assert precision_and_recall(features(fields), features(fields)) == (1.0, 1.0)
    assert precision_and_recall(features(fields + 100), features(fields)) == (0.0, 0.0)


def test_features_of_fields_keep_distances_by_area_where_all_patterns_are_kept() -> None:
    rng = np.random.default_rng(1)
    training = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 4)) + 280  # three patterns, and three components
    features = FieldFeatures.of(training, AREA)
    one, other = training[:1], training[1:2]
    apart = np.sqrt((AREA * (one - other) ** 2).sum()) / features.spread
    assert np.linalg.norm(features(one) - features(other)) == pytest.approx(apart, rel=1e-6)


def test_the_energy_distance_of_two_points_is_twice_what_lies_between_them_and_of_a_set_with_itself_zero() -> None:
    low, high = np.full((5, 4), 280.0), np.full((7, 4), 283.0)
    assert energy(low, high, AREA) == pytest.approx(6.0)
    some = np.random.default_rng(2).normal(280, 5, size=(9, 4))
    assert energy(some, some, AREA) == pytest.approx(0.0, abs=1e-6)


def test_twice_the_amplitude_is_six_decibels_away_and_an_equal_field_none() -> None:
    latitude, longitude = np.linspace(50, 40, 4), np.arange(0, 16) * 0.25
    values = np.random.default_rng(3).normal(size=(6, 4, 16))
    truth = xr.DataArray(values, {"latitude": latitude, "longitude": longitude}, ("time", "latitude", "longitude"))
    assert log_spectral_distance(truth, truth) == pytest.approx(0.0, abs=1e-12)
    assert log_spectral_distance(2 * truth, truth) == pytest.approx(20 * np.log10(2.0))


def test_bits_of_a_gaussian_are_those_of_its_formula_in_the_unit_of_the_store(globe_store: str) -> None:
    store = open_store(globe_store)
    plan = plan_of("functa-fields", store)
    model = new_model(plan.spec, seed=0).eval()
    model.value_scale.fill_(0.05)  # type: ignore[union-attr, operator]
    first = entries("functa", Checkpoint(plan=plan, epoch=0), model, {})[0]
    truth = store.field[-2:].load()
    found = first.inferred(truth)
    made = first.values(found.mean, kind_of("sphere").geometry(truth)).reshape(truth.shape).astype(np.float64)
    std = 0.05 * plan.scaling.scale
    nats = ((truth.values - made) / std) ** 2 / 2 + np.log(std * np.sqrt(2 * np.pi))
    assert first.bits(truth, found) == pytest.approx(nats.mean() / np.log(2), rel=1e-4)


def test_bits_with_the_latent_are_the_bound_with_the_components_summed_over(classic) -> None:
    checkpoint, network, origin = load_model(str(classic.checkpoint))
    entry = entries("classic", checkpoint, network, origin)[1]
    assert entry.steps == 0
    field = open_store(classic.store).field[-3:].load()
    batch, found = entry.batch(field), entry.inferred(field)
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn(3, network.spec.latent, generator=generator) for _ in range(2)]
    with torch.no_grad():
        bounds = [network.elbo(batch, noise=each.expand(2, -1, -1)).elbo.mean() for each in noise]
    points = field[0].size
    nats = float(torch.stack(bounds).mean()) / points - np.log(checkpoint.plan.scaling.scale)
    bits = entry.bits_bound(field, found, 7)
    assert bits < -nats / np.log(2) + 1e-6  # q(c) of a network can only loosen it
    assert bits == pytest.approx(-nats / np.log(2), abs=0.5)


def test_members_of_a_latent_without_width_are_its_distribution_at_even_levels(globe_store: str) -> None:
    store = open_store(globe_store)
    plan = plan_of("functa-fields", store)
    entry: Entry = entries("functa", Checkpoint(plan=plan, epoch=0), new_model(plan.spec, seed=0).eval(), {})[0]
    field = store.field[-1:].load()
    geometry, found = kind_of("sphere").geometry(field), entry.inferred(field)
    drawn = entry.members(found, geometry, 3, 0)
    np.testing.assert_allclose(drawn[1], entry.values(found.mean, geometry), rtol=1e-5)
    np.testing.assert_allclose(drawn[2] - drawn[1], drawn[1] - drawn[0], rtol=1e-2)


def test_the_best_are_those_whose_printed_numbers_are() -> None:
    rows = {"a": {"energy": 1.00001, "one_nn": 0.9, "recall": 0.5}, "b": {"energy": 1.0, "one_nn": 0.3, "recall": 0.6}}
    assert best(rows) == {"energy": ["a", "b"], "one_nn": ["b"], "recall": ["b"]}
    assert best({"a": {"energy": 1.0}, "b": {}}) == {}, "nobody is the best without company"
    assert shown(float("nan")) == "–"


def test_every_metric_says_what_it_is() -> None:
    for key, metric in METRICS.items():
        assert metric.name and metric.unit and metric.meaning and not metric.meaning.endswith("."), key
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)


def test_the_papers_figures_stand_beside_stores_of_its_data_alone(globe_store: str) -> None:
    told = comparison_paper.paper_of(open_store(globe_store))
    assert told is not None and told["data_set"] == "ERA5" and "authors" in told["note"]
    assert told["figures"]["Functa, 3 steps"]["inference, s"] == 0.01899
    celeba = comparison_paper.figures_of("CelebA-HQ")
    assert celeba["GASP"] == {"FID": 14.01, "precision": 0.81, "recall": 0.43} and celeba["Functa"] == {"FID": 40.4}
