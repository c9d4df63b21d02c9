"""Small parts and holes, by hand: what becomes of them, and that it is said everywhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from scipy import ndimage

from a2fseg_cli import api
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.progression import progression
from a2fseg_cli.inference.cleaning import cleaned, least_volumes, successor
from a2fseg_cli.inference.patient import load_patient
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.weights.card import absent_below_ml
from a2fseg_cli.weights.file_format import load_weights, save_weights

Run = Callable[..., tuple[int, str, str]]
CONFIG = ModelConfig()
NCR, ED, ET = 1, 2, 3


def tumour() -> npt.NDArray[np.uint8]:
    """Oedema of 10 x 10 x 10 voxels; in it enhancing tumour of 4 x 4 x 4 round a core of 2 x 2 x 2."""
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[2:12, 2:12, 2:12] = ED
    classes[4:8, 4:8, 4:8] = ET
    classes[5:7, 5:7, 5:7] = NCR
    return classes


def test_enhancing_becomes_core_core_oedema_and_the_rest_background() -> None:
    assert [successor(CONFIG, region) for region in ("ET", "TC", "WT")] == [NCR, ED, 0]
    before = tumour()
    before[10, 10, 9:11] = ET  # 2 voxels in the oedema
    before[16, 16, 14:17] = ED  # 3 voxels apart
    kept = before.copy()
    after, said = cleaned(before, CONFIG, (1, 1, 2), {"ET": 5})
    assert said == [
        "1 part of ET (enhancing) under 5 mm3 (together 4 mm3) became NCR (necrotic and non-enhancing core)"
    ]
    assert (after[10, 10, 9:11] == NCR).all()
    assert (after != before).sum() == 2
    after, said = cleaned(before, CONFIG, (1, 1, 2), {"ET": 5, "TC": 5, "WT": 10})
    assert said == [
        "1 part of WT (whole tumour) under 10 mm3 (together 6 mm3) was removed",
        "1 part of TC (tumour core) under 5 mm3 (together 4 mm3) became ED (oedema)",
    ]
    assert (after == tumour()).all()
    assert (before == kept).all()


def test_a_region_that_is_too_small_in_all_is_taken_as_absent() -> None:
    """64 - 8 = 56 voxels of 2 mm3 are 0.112 mL; the core round and in them is then 0.128 mL, all of it necrotic."""
    after, said = cleaned(tumour(), CONFIG, (1, 1, 2), absent_ml={"ET": 0.12})
    assert said == [
        "ET (enhancing) of 0.112 mL was taken as NCR (necrotic and non-enhancing core): below 0.12 mL these weights "
        "rather invent it"
    ]
    assert (after == ET).sum() == 0
    assert (after == NCR).sum() == 64
    assert (after == ED).sum() == 1000 - 64
    assert cleaned(tumour(), CONFIG, (1, 1, 2), absent_ml={"ET": 0.112})[1] == []
    assert cleaned(tumour() % ET, CONFIG, (1, 1, 2), absent_ml={"ET": 0.12})[1] == []
    after, said = cleaned(tumour(), CONFIG, (1, 1, 2), absent_ml={"WT": 3})
    assert said == ["WT (whole tumour) of 2 mL was removed: below 3 mL these weights rather invent it"]
    assert not after.any()


def test_a_card_whose_region_has_no_successor_changes_nothing() -> None:
    """Round the enhancing tumour there is whole tumour alone, and its other parts are two."""
    config = replace(CONFIG, regions=(("WT", ("NCR", "ED", "ET")), ("ET", ("ET",))))
    after, said = cleaned(tumour(), config, (1, 1, 2), absent_ml={"ET": 0.12})
    assert (after == tumour()).all()
    assert said == []


def test_a_volume_just_below_is_not_called_the_same() -> None:
    """1,999 voxels of 0.1 mm3 are 0.1999 mL."""
    classes = np.zeros((20, 20, 20), np.uint8)
    classes.flat[:1999] = ET
    assert "of 0.1999 mL" in cleaned(classes, CONFIG, (0.1, 1, 1), absent_ml={"ET": 0.2})[1][0]
    classes.flat[:2000] = ET
    assert cleaned(classes, CONFIG, (0.1, 1, 1), absent_ml={"ET": 0.2})[1] == []


def test_when_the_card_takes_a_region_as_absent() -> None:
    card = {"absent_below_ml": {"ET": {"t1c": 0.2, "t2": 0.1}, "XT": {"t1c": 9}}}
    assert absent_below_ml(card, CONFIG, ("t1c", "flair")) == {"ET": 0.2}
    assert absent_below_ml(card, CONFIG, ("t2", "t1c")) == {"ET": 0.2}
    assert absent_below_ml(card, CONFIG, ("t2",)) == {"ET": 0.1}
    assert absent_below_ml(card, CONFIG, ("flair",)) == {}
    for strange in (None, 5, {"ET": 0.2}, {"ET": {"t1c": "0.2"}}, {"ET": {"t1c": True}}, {"ET": {"t1c": -1}}):
        assert absent_below_ml({"absent_below_ml": strange}, CONFIG, ("t1c",)) == {}
    assert absent_below_ml({}, CONFIG, ("t1c",)) == {}


def test_a_part_of_the_size_itself_stays() -> None:
    """56 voxels of 1 mm3 are not under 56 mm3; two parts that touch at a corner are one."""
    assert cleaned(tumour(), CONFIG, (1, 1, 1), {"ET": 56})[1] == []
    assert len(cleaned(tumour(), CONFIG, (1, 1, 1), {"ET": 56.5})[1]) == 1
    classes = np.zeros((4, 4, 4), np.uint8)
    classes[0, 0, 0] = classes[1, 1, 1] = ED
    assert cleaned(classes, CONFIG, (1, 1, 1), {"WT": 2})[1] == []
    two = cleaned(np.pad(classes, ((0, 3), (0, 0), (0, 0)))[::3], CONFIG, (1, 1, 1), {"WT": 2})[1]
    assert two == ["1 part of WT (whole tumour) under 2 mm3 (together 1 mm3) was removed"]


def test_holes() -> None:
    """In the core they become core, in the oedema oedema; what opens to the outside through a face is none."""
    before = tumour()
    before[5, 5, 5] = 0  # in the core
    before[4, 6, 6] = 0  # in the enhancing rim, towards the oedema
    before[10, 10, 10] = 0  # in the oedema
    before[2:5, 9, 9] = 0  # open above
    after, said = cleaned(before, CONFIG, (1, 1, 1), fill_holes=True)
    assert said == [
        "holes of 1 mm3 in TC (tumour core) became NCR (necrotic and non-enhancing core)",
        "holes of 2 mm3 in WT (whole tumour) became ED (oedema)",
    ]
    assert (after[5, 5, 5], after[4, 6, 6], after[10, 10, 10], after[3, 9, 9]) == (NCR, ED, ED, 0)
    np.testing.assert_array_equal(after > 0, ndimage.binary_fill_holes(before > 0))


def test_nothing_asked_or_nothing_there_is_the_same_map() -> None:
    classes = tumour()
    assert cleaned(classes, CONFIG, (1, 1, 1)) == (classes, [])
    empty = np.zeros((3, 3, 3), np.uint8)
    assert cleaned(empty, CONFIG, (1, 1, 1), {"ET": 5}, True) == (empty, [])


def test_other_tasks() -> None:
    one = ModelConfig(classes=("background", "lesion"), regions=(("lesion", ("lesion",)),), label_values=(0, 1))
    classes = np.ones((5, 5, 5), np.uint8)
    classes[2, 2, 2] = 0
    after, said = cleaned(classes, one, (1, 1, 1), {"lesion": 10}, True)
    assert after.all()
    assert said == ["holes of 1 mm3 in lesion became lesion"]
    three = ModelConfig(
        classes=("background", "a", "b", "c"),
        regions=(("all", ("a", "b", "c")), ("c", ("c",))),
        label_values=(0, 1, 2, 3),
    )
    with pytest.raises(UsageError, match=r"its parts could become a, b; nothing says which\."):
        least_volumes(three, {"c": 5})


@pytest.mark.parametrize(("sizes", "message"), [({"XT": 5}, "WT, TC, ET"), ({"ET": 0}, "more than 0")])
def test_what_cannot_be_removed(sizes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        least_volumes(CONFIG, sizes)


def test_by_the_command(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """The mask, the volumes, the warnings and the page agree; a random network leaves many small parts."""
    seg, stats, page = tmp_path / "s.nii.gz", tmp_path / "s.json", tmp_path / "p.html"
    command = (
        "predict",
        phantom,
        "-o",
        seg,
        "--weights",
        toy_weights,
        "--stats",
        stats,
        "--report",
        page,
        "--overwrite",
    )
    sizes = ("--remove-small", "wt=3000", "--remove-small", "ET=2000", "--fill-holes")
    assert run(*command)[0] == 0
    plain = sitk.GetArrayFromImage(sitk.ReadImage(str(seg)))
    assert json.loads(stats.read_text())["settings"]["remove_small"] == {}
    code, _, err = run(*command, *sizes)
    assert code == 0, err
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(seg)))
    expected, said = cleaned(plain, CONFIG, (3, 3, 3), {"WT": 3000, "ET": 2000}, True)
    assert said
    np.testing.assert_array_equal(mask, expected)
    numbers = json.loads(stats.read_text())
    assert numbers["settings"]["remove_small"] == {"wt": 3000, "ET": 2000}
    assert numbers["settings"]["fill_holes"] is True
    assert numbers["volumes_ml"]["WT"] == pytest.approx((mask > 0).sum() * 27 / 1000)
    for sentence in said:
        assert f"P1: {sentence}" in numbers["warnings"]
        assert sentence in page.read_text()
        assert sentence.split()[0] in err
    for wrong in ("ET", "ET=", "=5", "ET=-1", "ET=nan", "ET=x"):
        code, _, err = run(*command, "--remove-small", wrong)
        assert code == 2
        assert "expected REGION=MM3, such as ET=50" in " ".join(err.split())
    assert run(*command, "--remove-small", "ET=5", "--remove-small", "et=6")[0] == 2
    assert run(*command, "--remove-small", "XT=5")[0] == 2
    assert run(*command, "--colours", "pink")[0] == 2


def test_volumes_as_csv(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """A row a patient with the volume of every class and region, and its subject and session."""
    table = tmp_path / "cases.csv"
    files = {m: phantom / f"P1_{m}.nii.gz" for m in ("t1c", "flair")}
    rows = "".join(f"{name},{files['t1c']},{files['flair']}\n" for name in ("sub-01_ses-2", "Smith"))
    table.write_text("case,t1c,flair\n" + rows)
    code, _, err = run(
        "predict", table, "-o", tmp_path / "out", "--stats", tmp_path / "s.csv", "--weights", toy_weights
    )
    assert code == 0, err
    with (tmp_path / "s.csv").open(newline="") as file:
        smith, bids = csv.DictReader(file)
    assert (bids["case"], bids["subject"], bids["session"]) == ("sub-01_ses-2", "sub-01", "ses-2")
    assert (smith["case"], smith["subject"], smith["session"]) == ("Smith", "Smith", "")
    parts = [float(bids[f"{name}_ml"]) for name in ("NCR", "ED", "ET")]
    assert float(bids["WT_ml"]) == pytest.approx(sum(parts), abs=0.002)
    assert float(bids["TC_ml"]) == pytest.approx(parts[0] + parts[2], abs=0.002)
    assert int(bids["ED_voxels"]) * 27 / 1000 == pytest.approx(parts[1], abs=0.001)


def test_evaluate_scores_what_predict_writes(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Dice of the network's masks, cleaned on the way, is that of the files that `predict` cleans."""
    folder, out = tmp_path / "data/P1", tmp_path / "out"
    folder.mkdir(parents=True)
    for name in ("t1c", "flair"):
        (folder / f"P1_{name}.nii.gz").symlink_to(phantom / f"P1_{name}.nii.gz")
    truth = np.zeros((50, 64, 64), np.uint8)
    truth[20:35, 20:40, 20:40], truth[24:30, 24:34, 24:34] = ED, ET
    image = sitk.GetImageFromArray(truth)
    image.CopyInformation(sitk.ReadImage(str(folder / "P1_t1c.nii.gz")))
    sitk.WriteImage(image, str(folder / "P1_seg.nii.gz"))
    sizes, network = ("--remove-small", "ET=2000", "--fill-holes"), ("--weights", toy_weights)
    assert run("predict", folder.parent, "-o", out, *sizes, *network)[0] == 0
    scores = []
    for options in ((*sizes, *network), ("--predictions", out), network):
        code, _, err = run("evaluate", folder.parent, "-o", tmp_path / f"scores{len(scores)}", *options)
        assert code == 0, err
        with (tmp_path / f"scores{len(scores)}/scores.csv").open(newline="") as file:
            scores.append([row["dice"] for row in csv.DictReader(file)])
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]
    for other in (("--predictions", out), ("--write-card", tmp_path / "w.safetensors", "--all-subsets")):
        code, _, err = run("evaluate", folder.parent, *sizes, *other)
        assert code == 2
        assert "exclude each other" in err


@pytest.fixture
def careful(toy_weights: Path, tmp_path: Path) -> Path:
    """The toy weights, with a card that believes no ET from T1c."""
    weights, tensors = load_weights(toy_weights, parameter_shapes)
    card = {**weights.card, "absent_below_ml": {"ET": {"t1c": 5000}}}
    return save_weights(tmp_path / "careful.safetensors", tensors, weights.config, card).path


def test_the_card_by_predict(run: Run, phantom: Path, careful: Path, tmp_path: Path) -> None:
    """Where T1c is given, ET becomes necrotic core, and this is said; without T1c, or on request, it stays."""
    t1c, flair = (phantom / f"P1_{m}.nii.gz" for m in ("t1c", "flair"))
    masks = {}
    for name, options in {
        "believed not": ("--t1c", t1c),
        "kept": ("--t1c", t1c, "--keep-tiny"),
        "without t1c": ("--flair", flair),
    }.items():
        out = tmp_path / f"{name}.nii.gz"
        code, _, err = run("predict", *options, "-o", out, "--weights", careful)
        assert code == 0, err
        assert ("rather invent it" in " ".join(err.split())) == (name == "believed not")
        masks[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    assert (masks["kept"] == ET).any()
    assert (masks["without t1c"] == ET).any()
    np.testing.assert_array_equal(masks["believed not"], np.where(masks["kept"] == ET, NCR, masks["kept"]))
    found = api.segment(t1c=t1c, network=api.load_network(careful))
    np.testing.assert_array_equal(found.labels, masks["believed not"])
    assert any("rather invent it" in warning for warning in found.warnings)


def test_the_card_by_evaluate(run: Run, phantom: Path, careful: Path, tmp_path: Path) -> None:
    """A truth without ET: Dice 1 where the card removes it, 0 where it is kept or T1c is not given."""
    folder = tmp_path / "data/P1"
    folder.mkdir(parents=True)
    for name in ("t1c", "flair"):
        (folder / f"P1_{name}.nii.gz").symlink_to(phantom / f"P1_{name}.nii.gz")
    truth = np.zeros((50, 64, 64), np.uint8)
    truth[20:35, 20:40, 20:40] = ED
    image = sitk.GetImageFromArray(truth)
    image.CopyInformation(sitk.ReadImage(str(folder / "P1_t1c.nii.gz")))
    sitk.WriteImage(image, str(folder / "P1_seg.nii.gz"))
    dice = {}
    for options in ((), ("--keep-tiny",)):
        out = tmp_path / f"scores{len(options)}"
        subsets = ("--subset", "t1c", "--subset", "flair", "--metrics", "dice", "--weights", careful)
        code, _, err = run("evaluate", folder.parent, *subsets, "-o", out, *options)
        assert code == 0, err
        with (out / "scores.csv").open(newline="") as file:
            dice |= {(r["subset"], len(options)): float(r["dice"]) for r in csv.DictReader(file) if r["region"] == "ET"}
    assert dice == {("t1c", 0): 1, ("flair", 0): 0, ("t1c", 1): 0, ("flair", 1): 0}


def test_the_figure_shows_what_is_scored(phantom: Path, careful: Path) -> None:
    """From T1c there is ET, which the card takes away: so it is neither scored nor drawn; kept, it is both."""
    (case,) = find_cases(phantom)
    case = replace(case, images={"t1c": case.images["t1c"]})
    found = {}
    for keep in (False, True):
        source = NetworkMasks(Segmenter(careful, choose_compute("cpu", "fp32")), ScoringOptions(keep_tiny=keep))
        ((name, classes),) = progression(source, load_patient(case, source.config))
        found[name, keep] = bool((classes == ET).any())
    assert found == {("t1c", False): False, ("t1c", True): True}
