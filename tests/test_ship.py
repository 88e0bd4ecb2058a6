"""The model that ships: small, half precision, with its recipe; and the script that makes it out of
a trained one.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import ship

import charrnn
from charrnn.checkpoint.model import SHIPPED, load, save

FIGURES = (Path(__file__).parent / "benchmarks" / "README.md").read_text(encoding="utf-8")
CONFIG = charrnn.TrainConfig(steps=6, hidden=8, batch_size=8, seq_len=16, sample_every=0)


@pytest.fixture
def text(tmp_path):
    """Return the path of a short text."""
    path = tmp_path / "a text.txt"
    path.write_text("The tide came in, and the tide went out again.\n" * 200, encoding="ascii")
    return path


@pytest.fixture
def trained(text, tmp_path):
    """Return the path of a checkpoint whose run has ended."""
    path = tmp_path / "trained.npz"
    list(charrnn.train([text], replace(CONFIG, out=path)))
    return path


def test_the_model_that_ships_is_small_and_in_half_precision():
    assert SHIPPED.stat().st_size <= 2_000_000
    with np.load(SHIPPED, allow_pickle=False) as arrays:
        kinds = {name: arrays[name].dtype for name in arrays.files if name != "meta"}
    assert set(kinds.values()) == {np.dtype("<f2")}
    assert not any(name.startswith("resume.") for name in kinds)


def test_the_model_that_ships_tells_its_recipe_and_so_do_the_benchmarks():
    meta = load(SHIPPED).meta
    recipe = meta["recipe"]
    assert f"--seed {recipe['seed']}" in recipe["command"]
    assert f"--steps {meta['steps']}" in recipe["command"]
    assert recipe["command"] in FIGURES
    assert f"{meta['val_loss']:.3f}" in FIGURES


def test_the_model_that_ships_predicts_as_well_as_it_says(shakespeare):
    model = load(SHIPPED)
    assert ship.validation_loss(model, shakespeare) == pytest.approx(
        model.meta["val_loss"], abs=1e-4
    )
    assert model.meta["val_loss"] < model.meta["floor_nats"]
    assert abs(model.meta["val_loss"] - model.meta["recipe"]["val_loss"]) < 1e-3


def test_without_a_model_the_one_that_ships_is_used_and_named(
    cli,
):
    out, err = cli("sample --seed 1 --length 40 --prime ROMEO:")
    assert out.startswith("ROMEO:")
    assert err == "model: shakespeare, which ships with charrnn; there is no model.npz here\n"
    assert cli.json("next ROME -k 1")[0]["next"][0]["character"] == "O"


def test_info_shows_how_it_was_made(cli):
    told = cli.json("info")[0]["command"]
    assert "".join(told.split()) in "".join(cli("info").out.split())


def test_a_trained_model_ships_in_half_precision_and_its_command_repeats_it(
    text, trained, tmp_path, cli
):
    before = trained.read_bytes()
    out = tmp_path / "shipped.npz"
    ship.main([str(trained), str(text), "--out", str(out)])
    assert trained.read_bytes() == before
    made, full = load(out), load(trained)
    assert np.array_equal(
        made.parameters.flat, full.parameters.flat.astype(np.float16).astype(np.float32)
    )
    assert made.meta["val_loss"] == pytest.approx(full.meta["val_loss"], abs=1e-3)
    command = made.meta["recipe"]["command"].removeprefix("charrnn ")
    assert str(tmp_path) not in command
    cli(f"{command} --out again.npz --quiet")
    assert np.array_equal(load("again.npz").parameters.flat, full.parameters.flat)


def test_a_model_that_half_precision_harms_does_not_ship(text, trained, tmp_path, monkeypatch):
    def coarse(model):
        return replace(model, parameters=model.parameters.like())

    monkeypatch.setattr(ship, "halved", coarse)
    with pytest.raises(SystemExit, match="half precision costs"):
        ship.ship(trained, text, tmp_path / "shipped.npz")
    assert not list(tmp_path.glob("shipped*"))


@pytest.mark.parametrize("change", [{"step": 3}, {"val_loss": None}], ids=str)
def test_a_run_that_has_not_ended_or_was_not_validated_does_not_ship(
    change, text, trained, tmp_path
):
    model = load(trained)
    save(trained, replace(model, meta=model.meta | change))
    with pytest.raises(SystemExit, match="hasn't ended"):
        ship.ship(trained, text, tmp_path / "shipped.npz")


def test_the_loss_is_that_of_the_run(text, trained):
    model = load(trained)
    assert math.isclose(ship.validation_loss(model, text), model.meta["val_loss"], rel_tol=1e-6)
