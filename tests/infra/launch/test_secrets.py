"""What is secret stays where it is given: no tag of MLflow, no file that others can read."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.data.store import open_store
from pipelines.training.token import ensure_private_token, token_file, write_token
from pipelines.training.train import run_tags


@pytest.mark.parametrize(
    "url",
    ["https://ann:planted@host/uk.zarr", "https://host/uk.zarr?sig=planted", "s3://planted:planted@bucket/uk.zarr"],
)
def test_a_password_in_a_stores_url_is_no_tag(url: str, workplace: Path) -> None:
    store = replace(open_store(str(workplace / "store")), path=url)
    tags = run_tags(load_config("downscale"), store, 0)
    assert "planted" not in str(tags)
    assert tags["store"].endswith("/uk.zarr")


def test_rays_own_token_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_file() == tmp_path / ".ray" / "auth_token"
    ensure_private_token()
    token = token_file().read_text()
    assert len(token) == 64 and stat.S_IMODE(token_file().stat().st_mode) == 0o600
    token_file().chmod(0o644)  # as Ray writes it
    ensure_private_token()
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o600
    assert token_file().read_text() == token
    with pytest.raises(FileExistsError):
        write_token(token_file())
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    token_file().chmod(0o644)
    ensure_private_token()
    assert stat.S_IMODE(token_file().stat().st_mode) == 0o644, "it is not used"
