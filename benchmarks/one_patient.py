"""One patient, files to mask: plain PyTorch in MONAI's sliding windows against `predict`'s path, same weights.

    python benchmarks/one_patient.py PATIENT_FOLDER ... [--weights FILE | --preset paper] [--windows 2] [--repeats 3]

The yardstick is what one would write today: SimpleITK, z-score, the network in fp32 (`plain.py`), windows of 128 cubed
at half overlap with Gaussian importance, argmax, SimpleITK. It gets the volume as it is read, then the brain only,
then the brain in one window: what instance norm says depends on the window, so only there the masks can be the same.
All start from the files and end with a file; loading the network is left out. With `--preset` the network is new: its
times are those of a trained one. With `--windows N` only N of the yardstick's windows are run and the others are
taken to cost as much; the table says so. Prints Markdown: median seconds, and for a trained network Dice: of the masks
with each other and with the truth.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.memory import keep_pages

keep_pages()

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from plain import PlainA2FSeg  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from a2fseg_cli.cases.discovery import find_cases  # noqa: E402
from a2fseg_cli.core.a2fseg import A2FSeg  # noqa: E402
from a2fseg_cli.core.config import PRESETS, ModelConfig  # noqa: E402
from a2fseg_cli.imaging.label_maps import read_classes  # noqa: E402
from a2fseg_cli.imaging.labels import region_dice  # noqa: E402
from a2fseg_cli.inference.exports import finish_patient  # noqa: E402
from a2fseg_cli.inference.options import OutputOptions  # noqa: E402
from a2fseg_cli.inference.patient import load_patient, segment_patient  # noqa: E402
from a2fseg_cli.inference.places import PatientFiles  # noqa: E402
from a2fseg_cli.inference.predictor import Segmenter  # noqa: E402
from a2fseg_cli.weights.cache import resolve_weights  # noqa: E402
from a2fseg_cli.weights.file_format import save_weights  # noqa: E402


@dataclass(frozen=True)
class Way:
    """How the yardstick lays its windows: edge in voxels (None: one window round all of it), over the brain or all."""

    name: str
    edge: int | None
    crop: bool


def ways(edge: int) -> tuple[Way, ...]:
    """Return the three ways, with windows of `edge` cubed."""
    cubes = f"windows of {edge}"
    return (
        Way(f"{cubes}, whole volume", edge, False),
        Way(f"{cubes}, brain crop", edge, True),
        Way("one window, brain crop", None, True),
    )


@dataclass(frozen=True)
class Run:
    """Seconds from files to file, the class map (D, H, W) if it is whole, and how many windows there were."""

    seconds: float
    classes: np.ndarray | None
    windows: int


def yardstick(net: PlainA2FSeg, files: Mapping[str, Path], way: Way, out: Path, most: int | None = None) -> Run:
    """Return the run of plain PyTorch in MONAI's windows.

    Args:
        net: The network.
        files: Modality to file, all of them.
        way: Which windows, over what.
        out: File to write.
        most: How many windows are really run; None runs all.
    """
    began = time.perf_counter()
    images = [sitk.ReadImage(str(files[m]), sitk.sitkFloat32) for m in net.config.modalities]
    volume = torch.from_numpy(np.stack([sitk.GetArrayFromImage(image) for image in images]))
    brain = volume != 0
    for channel, inside in zip(volume, brain, strict=True):
        channel[inside] = (channel[inside] - channel[inside].mean()) / channel[inside].std()
    hit = torch.nonzero(brain.any(dim=0))
    low, high = hit.min(dim=0).values.tolist(), (hit.max(dim=0).values + 1).tolist()
    box = tuple(slice(a, b) if way.crop else slice(None) for a, b in zip(low, high, strict=True))
    part = volume[(slice(None), *box)][None]
    spacing = images[0].GetSpacing()[::-1]
    shape = [
        max(1, int(n * mm / w + 0.5)) for n, mm, w in zip(part.shape[2:], spacing, net.config.spacing_mm, strict=True)
    ]
    window = [way.edge or max(net.config.smallest_edge, -(-n // 8) * 8) for n in shape]
    resized = part.shape[2:] != torch.Size(shape)
    seconds: list[float] = []
    windows = 0

    def predict(images: torch.Tensor) -> torch.Tensor:
        nonlocal windows
        windows += 1
        started = time.perf_counter()
        if most is not None and windows > most:
            return torch.zeros(1, len(net.config.classes), *images.shape[2:])
        logits = net(images, [True] * len(net.config.modalities))
        seconds.append(time.perf_counter() - started)
        return logits

    with torch.inference_mode():
        x = F.interpolate(part, shape, mode="trilinear") if resized else part
        beyond = [edge - n if way.edge is None else 0 for edge, n in zip(window, shape, strict=True)]
        x = F.pad(x, (0, beyond[2], 0, beyond[1], 0, beyond[0]))  # MONAI would pad on both sides: other masks
        logits = sliding_window_inference(x, window, 1, predict, overlap=0.5, mode="gaussian")
        assert isinstance(logits, torch.Tensor)
        shares = logits[:, :, : shape[0], : shape[1], : shape[2]].softmax(dim=1)
        shares = F.interpolate(shares, part.shape[2:], mode="trilinear") if resized else shares
        classes = np.zeros(volume.shape[1:], np.uint8)
        classes[box] = shares[0].argmax(dim=0).to(torch.uint8).numpy()
    result = sitk.GetImageFromArray(classes)
    result.CopyInformation(images[0])
    sitk.WriteImage(result, str(out), True)
    missing = max(0, windows - len(seconds)) * statistics.mean(seconds)
    return Run(time.perf_counter() - began + missing, classes if len(seconds) == windows else None, windows)


def ours(segmenter: Segmenter, files: Mapping[str, Path], out: Path) -> Run:
    """Return the run of `predict`'s own path."""
    began = time.perf_counter()
    patient = load_patient(Case("one", dict(files)), segmenter.config)
    found = segment_patient(patient, segmenter)
    finish_patient(patient, found, segmenter, OutputOptions(), PatientFiles(out))
    seconds = time.perf_counter() - began
    return Run(seconds, read_classes(out, segmenter.config).classes, len(found.prediction.plan.starts))


def measure(
    segmenter: Segmenter, folders: Sequence[Path], repeats: int, edge: int = 128, most: int | None = None
) -> str:
    """Return the table over one or more patients: the yardstick three ways, then ours."""
    config, runs, scores = segmenter.config, [], []
    plain = PlainA2FSeg(segmenter.model).eval()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seg.nii.gz"
        for folder in folders:
            case = find_cases(folder, config.modalities)[0]
            for _ in range(repeats):
                mine = ours(segmenter, case.images, out)
                runs.append([*(yardstick(plain, case.images, way, out, most) for way in ways(edge)), mine])
            scores.append(_agreement(runs[-1], case.truth, config))
    names = (*(way.name for way in ways(edge)), "a2fseg")
    medians = [statistics.median(run[i].seconds for run in runs) for i in range(len(names))]
    rows = ["| | windows | seconds | times ours |", "|---|---|---|---|"]
    for i, name in enumerate(names):
        count = max(run[i].windows for run in runs)
        timed = f" ({most} run)" if most is not None and most < count else ""
        rows.append(f"| {name} | {count}{timed} | {medians[i]:.2f} | {medians[i] / medians[-1]:.1f} |")
    where = f"{segmenter.compute.device}, {segmenter.compute.precision}, {torch.get_num_threads()} threads"
    widths = ", ".join(map(str, config.features_per_stage))
    rows += ["", f"{widths}; {where}; torch {torch.__version__}; {platform.machine()}; n = {repeats} x {len(folders)}"]
    return "\n".join([*rows, *_scores_table(scores, config, names)])


def _agreement(runs: Sequence[Run], truth: Path | None, config: ModelConfig) -> list[dict[str, float]]:
    """Return the Dice of ours with the yardstick in one window, then of each with the truth; nothing if one lacks."""
    maps = [run.classes for run in runs]
    if truth is None or any(classes is None for classes in maps):
        return []
    true = read_classes(truth, config).classes
    pairs = [(maps[-1], maps[-2]), *((classes, true) for classes in maps)]
    return [region_dice(a, b, config) for a, b in pairs if a is not None and b is not None]


def _scores_table(scores: Sequence[list[dict[str, float]]], config: ModelConfig, names: Sequence[str]) -> list[str]:
    known = [score for score in scores if score]
    if not known:
        return []
    regions = [region for region, _ in config.regions]
    rows = ["", f"| Dice, {len(known)} patients | {' | '.join(regions)} |", "|---" * (len(regions) + 1) + "|"]
    for i, name in enumerate(("a2fseg with one window: mean", *(f"{name} with truth: mean" for name in names))):
        values = [statistics.mean(score[i][region] for score in known) for region in regions]
        rows.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |")
    lowest = [min(score[0][region] for score in known) for region in regions]
    return [*rows, f"| a2fseg with one window: lowest | {' | '.join(f'{value:.4f}' for value in lowest)} |"]


def new_weights(preset: str, folder: Path) -> Path:
    """Return a file with the weights that a network of a preset starts with."""
    torch.manual_seed(0)
    path = folder / f"{preset}.safetensors"
    save_weights(path, A2FSeg(PRESETS[preset]).state_dict(), PRESETS[preset], {"name": preset})
    return path


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights")
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        weights = new_weights(options.preset, Path(scratch)) if options.preset else resolve_weights(options.weights)
        print(measure(Segmenter(weights), options.folders, options.repeats, options.edge, options.windows))


if __name__ == "__main__":
    main()
