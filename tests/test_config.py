"""The configuration of a network: what it holds, what it refuses, its way through JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets, subset_name
from a2fseg_cli.modalities import BRATS_MODALITIES

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any acceptable configuration, with any number and names of modalities and classes."""
    features = tuple(draw(st.lists(st.integers(1, 64), min_size=2, max_size=5)))
    stride = 2 ** (len(features) - 1)
    foreground = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True).filter(lambda n: "background" not in n))
    values = draw(
        st.lists(st.integers(1, 255), min_size=len(foreground), max_size=len(foreground), unique=True).map(tuple)
    )
    members = st.lists(st.sampled_from(foreground), min_size=1, max_size=3, unique=True).map(tuple)
    window = draw(st.tuples(*[st.integers(2, 9)] * 3))
    return ModelConfig(
        modalities=tuple(draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))),
        classes=("background", *foreground),
        label_values=(0, *values),
        regions=tuple(draw(st.dictionaries(NAMES, members, max_size=4)).items()),
        features_per_stage=features,
        attention_kernel_size=draw(st.sampled_from((1, 3, 5, 7))),
        spacing_mm=draw(st.tuples(*[st.floats(0.1, 20)] * 3)),
        patch_size=(window[0] * stride, window[1] * stride, window[2] * stride),
        architecture=draw(NAMES),
    )


@given(configs())
def test_json_round_trip(config: ModelConfig) -> None:
    assert ModelConfig.from_json(config.to_json()) == config


def test_presets() -> None:
    assert set(PRESETS) == {"paper", "small", "tiny"}
    assert PRESETS["paper"] == ModelConfig()
    assert PRESETS["paper"].features_per_stage == (32, 64, 128, 256, 320, 320)
    assert [config.smallest_edge for config in PRESETS.values()] == [64, 32, 32]
    assert [config.edge_step for config in PRESETS.values()] == [8, 8, 8]
    assert all(config.modalities == ("t1", "t1c", "t2", "flair") for config in PRESETS.values())


def test_regions_of_the_paper() -> None:
    """WT = 1 + 2 + ET, TC = 1 + ET, ET; classes are background, NCR, ED, ET."""
    config = ModelConfig()
    assert [config.region_classes(region) for region in ("WT", "TC", "ET")] == [(1, 2, 3), (1, 3), (3,)]
    with pytest.raises(KeyError):
        config.region_classes("PT")


def test_presence_is_in_the_models_order() -> None:
    config = ModelConfig()
    assert config.presence(["flair", "t1c"]) == (False, True, False, True)
    assert config.presence(BRATS_MODALITIES) == (True,) * 4
    for wrong in ([], ["t1", "pet"], ["T1"]):
        with pytest.raises(ValueError, match="non-empty subset"):
            config.presence(wrong)


def test_subsets_come_in_the_order_of_table_1() -> None:
    names = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
    assert names == [
        *("flair", "t2", "t2+flair", "t1c", "t1c+flair", "t1c+t2", "t1c+t2+flair", "t1"),
        *("t1+flair", "t1+t2", "t1+t2+flair", "t1+t1c", "t1+t1c+flair", "t1+t1c+t2", "t1+t1c+t2+flair"),
    ]


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_every_subset_comes_once(modalities: list[str]) -> None:
    subsets = all_subsets(modalities)
    assert len({frozenset(subset) for subset in subsets}) == len(subsets) == 2 ** len(modalities) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ()}, "modalities"),
        ({"modalities": ("t1", "t1")}, "distinct"),
        ({"modalities": ("t1.w", "t2")}, "t1.w"),
        ({"modalities": ("../t1", "t2")}, "names of modalities"),
        ({"modalities": ("t1+t2", "t2")}, "names of modalities"),
        ({"modalities": ("", "t2")}, "names of modalities"),
        ({"modalities": tuple(f"m{i}" for i in range(33))}, "32 modalities"),
        ({"classes": ("background",), "label_values": (0,), "regions": ()}, "classes"),
        ({"label_values": (0, 1, 2)}, "label value"),
        ({"label_values": (0, 1, 2, 2)}, "label value"),
        ({"label_values": (1, 0, 2, 3)}, "background"),
        ({"label_values": (0, 1, 2, 256)}, "255"),
        ({"label_values": (0, 1, 2, -1)}, "255"),
        ({"regions": (("WT", ()),)}, "WT"),
        ({"regions": (("WT", ("background",)),)}, "WT"),
        ({"regions": (("a/b", ("ET",)),)}, "a/b"),
        ({"regions": (("WT", ("ET",)), ("WT", ("ED",)))}, "twice"),
        ({"features_per_stage": (32,)}, "features_per_stage"),
        ({"features_per_stage": (32, 0)}, "features_per_stage"),
        ({"features_per_stage": (1,) * 9, "patch_size": (512, 512, 512)}, "8 stages"),
        ({"attention_kernel_size": 2}, "attention_kernel_size"),
        ({"spacing_mm": (1.0, 1.0, 0.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 1.0, float("nan"))}, "spacing_mm"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm"),
        ({"patch_size": (128, 128, 124)}, "multiples of 8"),
        ({"patch_size": (128, 128, 56)}, "at least 64"),
        ({"architecture": ""}, "architecture"),
        ({"architecture": "a b"}, "architecture"),
    ],
)
def test_refuses_what_cannot_be_a_network(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ModelConfig(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(json.loads(ModelConfig().to_json()) | {"extra": 1}),
        json.dumps({k: v for k, v in json.loads(ModelConfig().to_json()).items() if k != "patch_size"}),
        *(
            json.dumps(json.loads(ModelConfig().to_json()) | change)
            for change in (
                {"patch_size": [128, 128]},
                {"patch_size": [128, 128, float("inf")]},
                {"patch_size": None},
                {"regions": [["WT"]]},
                {"regions": 3},
                {"label_values": ["a", "b", "c", "d"]},
                {"modalities": 4},
                {"features_per_stage": [[32], [64]]},
            )
        ),
    ],
)
def test_refuses_json_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ValueError):
        ModelConfig.from_json(text)


def test_a_configuration_of_the_first_weights_is_an_a2fseg() -> None:
    fields = json.loads(ModelConfig().to_json())
    del fields["architecture"]
    fields["window"] = fields.pop("patch_size")
    assert ModelConfig.from_json(json.dumps(fields)) == ModelConfig()


def test_is_free_of_torch() -> None:
    code = "import sys, a2fseg_cli.core.config, a2fseg_cli.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
