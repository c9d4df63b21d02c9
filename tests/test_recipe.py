"""The recipe, and the network and recipe of a training from what was given."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from typing import Any

import pytest

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.recipe import RECIPES, Recipe
from a2fseg_cli.training.settings import Fields, network_and_recipe


def test_the_papers_recipe() -> None:
    paper = Recipe(**RECIPES["paper"])
    assert (paper.optimizer, paper.learning_rate, paper.epochs) == ("adam", 0.01, 400)
    assert PRESETS["paper"].patch_size == (128, 128, 128)
    assert paper.steps == 400 * 250


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "sgd"}, "optimizer sgd: expected adam, adamw or muon"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: expected more than 0 and less than 10"),
        ({"learning_rate": math.nan}, "learning_rate nan"),
        ({"epochs": 0}, "epochs 0: expected 1 or more"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch 0: expected 1 or more"),
        ({"batch_size": 0}, "batch_size 0: expected 1 or more"),
        ({"random_subsets": -1}, "random_subsets -1: expected 0 or more"),
        ({"foreground_share": 1.1}, "foreground_share 1.1: expected 0 to 1"),
        ({"foreground_weight": 0.0}, "foreground_weight 0.0: expected a finite number above 0"),
        ({"foreground_weight": math.inf}, "foreground_weight inf"),
        ({"dice_over": "voxels"}, "dice_over voxels: expected classes or regions"),
        ({"mix_share": -0.1}, "mix_share -0.1: expected 0 to 1"),
        ({"scanner_share": 2.0}, "scanner_share 2.0: expected 0 to 1"),
        ({"ema_decay": 1.0}, "ema_decay 1.0: expected 0 or more and less than 1"),
        ({"gradient_clip": 0.0}, "gradient_clip 0.0: expected more than 0"),
        ({"gradient_clip": math.nan}, "gradient_clip nan"),
        ({"weight_decay": -1.0}, "weight_decay -1.0: expected 0 or more and less than 1"),
        ({"time_budget_s": -1.0}, "time_budget_s -1.0: expected 0 s (none) or more"),
        ({"time_budget_s": math.nan}, "time_budget_s nan"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
        ({"draw": "patient"}, "draw patient: expected case, kind, or shares such as t1+flair=2,flair=1"),
        ({"draw": "flair=many"}, "draw flair=many: expected case, kind, or shares"),
        ({"draw": "flair=1,flair=2"}, "draw flair=1,flair=2: expected each combination of sequences once"),
        ({"draw": "flair=0"}, "draw flair=0: expected each combination of sequences once, with a share above 0"),
    ],
    ids=str,
)
def test_recipes_that_cannot_be_trained(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(Recipe(), **change)


def test_what_is_given_takes_the_place_of_the_presets() -> None:
    """One number stands for all axes; labels bring their classes, and each is a region where none is named."""
    config, recipe = network_and_recipe(
        "tiny",
        {"labels": {"core": 1, "oedema": 5}, "spacing_mm": 3, "patch_size": [32, 64, 32], "seed": 7, "epochs": None},
    )
    assert (config.classes, config.label_values) == (("background", "core", "oedema"), (0, 1, 5))
    assert config.regions == (("core", ("core",)), ("oedema", ("oedema",)))
    assert (config.spacing_mm, config.patch_size) == ((3, 3, 3), (32, 64, 32))
    assert (config.modalities, config.features_per_stage) == (("t1", "t1c", "t2", "flair"), (8, 16, 32, 64, 96))
    assert recipe == replace(Recipe(**RECIPES["tiny"]), seed=7)
    config, _ = network_and_recipe("tiny", {"labels": {"core": 1, "rim": 2}, "regions": {"all": ["core", "rim"]}})
    assert config.regions == (("all", ("core", "rim")),)


def test_every_field_of_the_recipe_can_be_given() -> None:
    assert {field.name for field in fields(Recipe)} <= set(Fields.__annotations__)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weight_decay": 0.1}, "weight_decay is for adamw and muon; the optimizer is adam."),
        ({"optimizer": "adam", "weight_decay": 0.0}, "weight_decay is for adamw and muon"),
        ({"epochs": 5, "time_budget_s": 60.0}, "epochs and time_budget_s: a training ends by one of them; give one."),
        ({"batch_size": 0}, "batch_size 0: expected 1 or more."),
        ({"patch_size": 7}, r"patch_size: edges must be multiples of 8, at least 64; got \(7, 7, 7\)."),
        ({"regions": {"all": ["core"]}}, "region all must consist of"),
    ],
    ids=str,
)
def test_what_is_not_acceptable_or_would_be_ignored_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        network_and_recipe("paper", given)


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "muon", "weight_decay": 0.1},
        {"epochs": 5},
        {"time_budget_s": 60.0},
        {"weight_decay": None, "epochs": None, "time_budget_s": 60.0},
    ],
    ids=str,
)
def test_what_is_used_is_accepted(given: dict[str, Any]) -> None:
    _, recipe = network_and_recipe("paper", given)
    assert all(getattr(recipe, name) == value for name, value in given.items() if value is not None)


def test_an_unknown_preset_and_an_unknown_field() -> None:
    with pytest.raises(UsageError, match="preset huge: expected paper, small, tiny"):
        network_and_recipe("huge", {})
    with pytest.raises(UsageError, match="rate: no setting of a training"):
        network_and_recipe("tiny", {"rate": 1})
