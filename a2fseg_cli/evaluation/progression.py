"""Figure 2 of the paper: one patient segmented from ever more modalities."""

from __future__ import annotations

from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import read_truth
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.imaging.label_maps import check_on_grid
from a2fseg_cli.imaging.restoring import Box, ClassMap
from a2fseg_cli.inference.patient import Patient, load_patient
from a2fseg_cli.modalities import best_background, heading
from a2fseg_cli.reporting.progression import write_subset_progression

# Order in which Figure 2 of the paper adds the modalities.
PROGRESSION = ("flair", "t1c", "t1", "t2")


def draw_progression(source: NetworkMasks, case: Case, path: Path) -> None:
    """Draw one patient from FLAIR to all modalities, then the truth, as PNG.

    Args:
        source: The network, and what is scored.
        case: The patient.
        path: The PNG.

    Raises:
        InputError: the patient cannot be read, or has no truth.
        ResourceError: the file cannot be written.
    """
    truth = read_truth(case, source.config, source.options.labels)
    patient = load_patient(case, source.config, pictures=True)
    truth = check_on_grid(truth, patient.reference, patient.geometry)
    columns = enumerate(progression(source, patient))
    write_subset_progression(
        path,
        patient.backdrops[best_background(patient.files)],
        [(f"{'+ ' if n else ''}{heading(name)}", patient.framed(classes)) for n, (name, classes) in columns],
        patient.framed(truth.classes),
        patient.spacing_mm,
        source.config.classes,
        title=case.name,
    )


def progression(source: NetworkMasks, patient: Patient) -> list[tuple[str, ClassMap]]:
    """Return what Figure 2 of the paper shows: the modality added and the class map (D, H, W) that is scored, in turn.

    FLAIR, then T1c, T1 and T2 as well; modalities that the patient lacks are passed over, and other tasks' are
    added in the model's order.
    """
    config, images = source.config, patient.prepared.images
    order = PROGRESSION if set(PROGRESSION) == set(config.modalities) else config.modalities
    names = [m for m in order if m in patient.files]
    subsets = [names[: n + 1] for n in range(len(names))]
    whole = Box((0, 0, 0), patient.geometry.size)
    predictions = source.segmenter.segment_subsets(images, [config.presence(subset) for subset in subsets])
    return [
        (subset[-1], source.classes(patient, subset, prediction).placed(whole))
        for subset, prediction in zip(subsets, predictions, strict=True)
    ]
