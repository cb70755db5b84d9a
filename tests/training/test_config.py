"""A config says what it means, survives the way through JSON, and refuses what it does not know."""

import json

import pytest
import torch
import yaml

from pipelines.config import Config, load_config, parse_config, presets
from pipelines.data.store import Store
from pipelines.training.plan import make_plan
from pipelines.training.tracking import flatten
from vamoh import FunctionBatch, VAMoH
from vamoh.encodings import even_places
from vamoh.peers import FunctaSpec, GaspSpec

MOST_PARAMS_OF_ONE_CALL = 100


def refusal(source: str, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_says_what_it_is_for(name) -> None:
    config = load_config(name)
    assert config.description
    assert len(flatten(config.model_dump(mode="json"))) <= MOST_PARAMS_OF_ONE_CALL


@pytest.mark.parametrize("name", ["chairs", "polymnist"])
def test_a_preset_for_another_kind_of_data_is_refused_for_a_climate_store(name, store: Store) -> None:
    with pytest.raises(ValueError, match=r"functions on the (cube|plane) .* is of the sphere: choose another"):
        make_plan(load_config(name), store)


PAPERS = {"era5": 41.4e6, "chairs": 39.5e6, "polymnist": 0.24e6, "shapes3d": 13.6e6, "celebahq": 136.6e6}


def test_the_shipped_presets_are_there() -> None:
    assert {"downscale", "demo", *PAPERS} <= set(presets())


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_models_have_their_numbers_of_parameters_and_a_finite_bound_in_half_precision(name) -> None:
    spec = load_config(name).model
    model = VAMoH(spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(PAPERS[name], rel=0.003)
    coords = even_places(spec.domain, 300)
    values = (coords.sum(dim=-1, keepdim=True) > 0).float().expand(-1, spec.channels)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.elbo(FunctionBatch(coords=coords[None], values=values[None]))
    assert terms.elbo.dtype == terms.kl_z.dtype == torch.float32 and torch.isfinite(terms.elbo).all()
    loss = -terms.elbo.sum()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", presets())
def test_a_config_survives_json_and_yaml(name) -> None:
    config = load_config(name, ["split.test=2019-03-24:2019-03-31"])
    tree = config.model_dump(mode="json")
    for back in (parse_config(json.loads(json.dumps(tree))), parse_config(yaml.safe_load(yaml.safe_dump(tree)))):
        assert back == config
        assert back.fingerprint == config.fingerprint


def test_a_fingerprint_names_the_content() -> None:
    names = {load_config("downscale", changes).fingerprint for changes in ([], ["seed=1"], ["context.every=2"])}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("trainng.epochs=3", "trainng", "training"),
        ("training.epoch=3", "training.epoch", "epochs"),
        ("context.evry=3", "context.evry", "every"),
        ("model.local.kernel=3", "model.local.kernel", "kernels"),
        ("model.encoder.centre=[1]", "model.encoder.centre", "centres"),
        ("split.tset=0.5", "split.tset", "test"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(override, key, nearest) -> None:
    assert refusal("downscale", override) == f"downscale: unknown key {key!r}, did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=0", "downscale: training.epochs: Input should be greater than or equal to 1, got 0"),
        ("training.epochs=many", 'downscale: training.epochs: Input should be a valid integer, .*, got "many"'),
        ("context.every=0", "downscale: context.every: Input should be greater than or equal to 1, got 0"),
        ("context.every=[8, 2]", r"a range of factors is \[low, high\], got \[8, 2\]"),
        ("split.test=1.5", "downscale: split.test: Input should be less than 1, got 1.5"),
        ("training.learning_rate=.inf", "downscale: training.learning_rate: Input should be a finite number"),
        ("training.clip=.nan", "downscale: training.clip: "),
        ("model.likelihood=norml", "downscale: model.likelihood: Input should be 'normal'"),
        ("model.latent=0", "latent must be at least 1, got 0"),
        ("context=null", "`context` and `model.local` come together"),
        ("seed.x=3", "downscale: seed: Input should be a valid integer|it has no keys"),
        ("seed", "--set expects key=value"),
        ("=3", "--set expects key=value"),
        ("seed=[", "--set seed=.*is not a YAML value"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(override, said) -> None:
    with pytest.raises(ValueError, match=said):
        load_config("downscale", [override])
    refusal("downscale", override)


def test_overrides_reach_every_depth_and_the_last_one_counts() -> None:
    config = load_config(
        "downscale", ["seed=3", "seed=4", "model.encoder.centres=[9,3]", "training.learning_rate=1e-3"]
    )
    assert (config.seed, config.model.encoder.centres, config.training.learning_rate) == (4, (9, 3), 1e-3)
    assert load_config("downscale", ["context.every=[2, 8]"]).context.factors == (2, 8)
    assert load_config("downscale", ["context.every=3"]).context.factors == (3, 3)


def test_a_bare_date_is_a_span_of_one_day(tmp_path) -> None:
    assert load_config("era5", ["split.test=2019-03-24"]).split.test == "2019-03-24"
    (tmp_path / "mine.yaml").write_text("split: {test: 2019-03-24, train: 2019-03}")
    assert load_config(str(tmp_path / "mine.yaml")).split.train == "2019-03"


def test_a_preset_that_does_not_exist_is_refused_with_the_nearest() -> None:
    assert refusal("downscal").startswith("there is no preset 'downscal', did you mean 'downscale'?")


def test_a_file_is_read_or_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no config file .*none.yaml: give a preset"):
        load_config(str(tmp_path / "none.yaml"))
    path = tmp_path / "mine.yaml"
    path.write_text("")
    assert load_config(str(path)) == Config()
    path.write_text("training: [1, 2")
    assert "is not valid YAML" in refusal(str(path))
    path.write_text("- 1\n- 2\n")
    assert "must hold keys and values, got list" in refusal(str(path))
    path.write_text("training: {epochs: 3, epchs: 4}")
    assert "unknown key 'training.epchs', did you mean 'epochs'?" in refusal(str(path))


@pytest.mark.parametrize("name", ["era5", "chairs", "celebahq"])
def test_the_peers_presets_have_their_papers_sizes(name) -> None:
    domain, channels = {"era5": ("sphere", 1), "chairs": ("cube", 1), "celebahq": ("plane", 3)}[name]
    functa, gasp = (load_config(f"{system}-{name}").model for system in ("functa", "gasp"))
    assert isinstance(functa, FunctaSpec) and isinstance(gasp, GaspSpec)
    assert functa == FunctaSpec(domain=domain, channels=channels, likelihood=functa.likelihood)
    assert (functa.width, functa.depth, functa.latent, functa.steps) == (512, 15, 128, 3)
    assert (gasp.domain, gasp.channels, gasp.latent, gasp.encoded) == (domain, channels, 64, name != "chairs")
    assert (gasp.hypernetwork, gasp.generator) == ((256, 512), (128, 128, 128))


@pytest.mark.parametrize(
    ("preset", "override", "said"),
    [
        ("functa-era5", "model.widht=3", "functa-era5: unknown key 'model.widht', did you mean 'width'?"),
        ("functa-era5", "model.encoder.centres=[1]", "functa-era5: unknown key 'model.encoder'"),
        (
            "gasp-era5",
            "model.discriminator.centre=[1]",
            "gasp-era5: unknown key 'model.discriminator.centre', did you mean 'centres'?",
        ),
        (
            "era5",
            "model.system=funkta",
            "era5: model.system: Input should be 'vamoh', 'functa' or 'gasp', got 'funkta'",
        ),
        ("era5", "model.width=3", "era5: unknown key 'model.width'"),
        (
            "gasp-era5",
            "training.select=validation_rmse",
            "gasp has no validation_rmse, expected one of validation_energy",
        ),
        ("functa-era5", "training.select=validation_elbo", "functa has no validation_elbo, expected one of"),
        ("downscale", "training.select=validation_energy", "validation_energy is of samples of whole functions"),
        ("functa-era5", "training.precision=bfloat16", "functa is trained in float32 and not compiled"),
        ("gasp-era5", "training.hidden=0.3", "gasp infers nothing"),
        ("gasp-shapes", "training.within=0.5", "discriminator sees all functions at the same places"),
        ("functa-era5", "context.every=4", "`context` and `model.local` come together"),
    ],
)
def test_a_peer_is_told_what_it_has_and_refused_what_it_has_not(preset, override, said) -> None:
    assert said in refusal(preset, override)
