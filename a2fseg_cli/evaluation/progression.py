"""Figure 2 of the paper: one patient segmented from ever more modalities."""

from __future__ import annotations

from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import read_truth
from a2fseg_cli.imaging.label_maps import check_on_grid
from a2fseg_cli.imaging.restoring import Box, ClassMap, classes_to_file
from a2fseg_cli.inference.patient import Patient, load_patient
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.modalities import best_background, heading
from a2fseg_cli.reporting.progression import write_subset_progression

# Order in which Figure 2 of the paper adds the modalities.
PROGRESSION = ("flair", "t1c", "t1", "t2")


def draw_progression(segmenter: Segmenter, case: Case, labels: str, path: Path) -> None:
    """Draw one patient from FLAIR to all modalities, then the truth, as PNG.

    Args:
        segmenter: The loaded network.
        case: The patient.
        labels: Scheme of the truth.
        path: The PNG.

    Raises:
        InputError: the patient cannot be read, or has no truth.
        ResourceError: the file cannot be written.
    """
    truth = read_truth(case, segmenter.config, labels)
    patient = load_patient(case, segmenter.config, pictures=True)
    truth = check_on_grid(truth, patient.reference, patient.geometry)
    columns = enumerate(progression(segmenter, patient))
    write_subset_progression(
        path,
        patient.backdrops[best_background(patient.files)],
        [(f"{'+ ' if n else ''}{heading(name)}", patient.framed(classes)) for n, (name, classes) in columns],
        patient.framed(truth.classes),
        patient.spacing_mm,
        segmenter.config.classes,
        title=case.name,
    )


def progression(segmenter: Segmenter, patient: Patient) -> list[tuple[str, ClassMap]]:
    """Return what Figure 2 of the paper shows: the modality added and the class map (D, H, W), in turn.

    FLAIR, then T1c, T1 and T2 as well; modalities that the patient lacks are passed over, and other tasks' are
    added in the model's order.
    """
    config, route = segmenter.config, patient.prepared.route
    order = PROGRESSION if set(PROGRESSION) == set(config.modalities) else config.modalities
    names = [m for m in order if m in patient.files]
    subsets = [names[: n + 1] for n in range(len(names))]
    whole = Box((0, 0, 0), patient.geometry.size)
    predictions = segmenter.segment_subsets(patient.prepared.images, [config.presence(subset) for subset in subsets])
    return [
        (name, classes_to_file(route, prediction.probabilities).placed(whole))
        for name, prediction in zip(names, predictions, strict=True)
    ]
