"""Train variants for the same time and compare them: Table 2 of the paper, and how many subsets a step should have.

    python benchmarks/ablation.py DATA_FOLDER SPLIT_JSON -o FOLDER --variants both average --minutes 8

Variants: `both` (the paper's network; the full set and two random subsets a step), `average` (average fusion only: no
attention, the head on F_avg predicts), `no-context` (attention that does not see the average), `no-modality-heads` (no
heads on single modalities), `one-subset` and `six-subsets` (random subsets a step). Coarse, so that it takes
minutes: 3 mm, whole brains, widths of `tiny`. Prints a Markdown table: mean Dice in % of the 15 subsets over the test
patients, on the working grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from a2fseg_cli.cases.case_lists import read_split  # noqa: E402
from a2fseg_cli.cases.discovery import find_cases  # noqa: E402
from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets  # noqa: E402
from a2fseg_cli.core.device import choose_compute  # noqa: E402
from a2fseg_cli.training.data import Sample, load_samples  # noqa: E402
from a2fseg_cli.training.loop import Setup, Trainer  # noqa: E402
from a2fseg_cli.training.recipe import RECIPES, Recipe  # noqa: E402
from a2fseg_cli.training.run_folder import RunFolder  # noqa: E402
from a2fseg_cli.training.validation import patient_scores  # noqa: E402

CONFIG = replace(PRESETS["tiny"], spacing_mm=(3.0, 3.0, 3.0), patch_size=(48, 64, 48))
RECIPE = Recipe(**RECIPES["tiny"] | {"learning_rate": 0.03, "foreground_share": 0.3})


# Of each variant what is left out of the network, and what differs in the recipe.
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "both": ((), {}),
    "average": (("average-only",), {}),
    "no-context": (("no-context",), {}),
    "no-modality-heads": (("no-modality-heads",), {}),
    "one-subset": ((), {"random_subsets": 1}),
    "six-subsets": ((), {"random_subsets": 6}),
}


def scores(trainer: Trainer, patients: Sequence[Sample]) -> dict[str, float]:
    """Return the mean Dice of each region: over the patients for each subset, then over all subsets."""
    config, model = trainer.setup.config, trainer.learner.model
    subsets = [config.presence(names) for names in all_subsets(config.modalities)]
    model.load_state_dict(trainer.learner.mean)
    per_name: dict[str, list[float]] = {}
    for patient in patients:
        for name, dice in patient_scores(model, trainer.setup.compute, patient, subsets).items():
            per_name.setdefault(name, []).append(dice)
    means = {name: float(np.mean(found)) for name, found in per_name.items()}
    return {
        region: float(np.mean([mean for name, mean in means.items() if name.startswith(f"{region} ")]))
        for region, _ in config.regions
    }


def measure(
    data: Path, split: Path, folder: Path, variants: Sequence[str], seconds: float, config: ModelConfig = CONFIG
) -> str:
    """Return the table."""
    cases = {case.name: case for case in find_cases(data, config.modalities)}
    parts = read_split(split)
    train, test = (
        load_samples([cases[name] for name in parts[part]], config, folder / "cache", lambda *_: None)
        for part in ("train", "test")
    )
    regions = [region for region, _ in config.regions]
    rows = [f"| variant | steps | {' | '.join(regions)} | mean |", "|---" * (3 + len(regions)) + "|"]
    for name in variants:
        ablation, changes = VARIANTS[name]
        recipe = replace(RECIPE, time_budget_s=seconds, **changes)
        network = replace(config, ablation=ablation)
        trainer = Trainer(Setup(network, recipe, train, [], RunFolder(folder / name), choose_compute("cpu")))
        trainer.run(lambda row: None)
        found = scores(trainer, test)
        cells = [f"{100 * value:.1f}" for value in (*found.values(), np.mean(list(found.values())))]
        rows.append(f"| {name} | {trainer.state.step} | {' | '.join(cells)} |")
    note = (
        f"{seconds / 60:.1f} minutes each, {torch.get_num_threads()} threads, {len(train)} patients; test: {len(test)}"
    )
    return "\n".join([*rows, "", note])


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(measure(options.data, options.split, options.output, options.variants, 60 * options.minutes))


if __name__ == "__main__":
    main()
