"""Table 1 of the paper on your patients: every network from an equal budget of computing, on one split and one metric.

    python benchmarks/table1.py DATA --split FILE -o FOLDER [--minutes 20] [--seeds 1] [--threads 1] [--spacing 3]

Same patients, same crops, same recipe (that of `tiny`, which was chosen for a2fseg), same sampling of subsets. The
budget is of computing, not of the clock, so that other work on the machine favours nobody: first the CPU seconds that
a step of each network takes are measured, the networks taking turns, and each gets as many steps as fit into the
minutes. Validation comes on top, equally often for each. A network that is done is not trained again, one that was
interrupted goes on: start the same command again. Prints Markdown, and writes it to FOLDER/table1.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import torch  # noqa: E402

import a2fseg_cli  # noqa: E402
from a2fseg_cli.cases.case_lists import read_split  # noqa: E402
from a2fseg_cli.cases.discovery import find_cases  # noqa: E402
from a2fseg_cli.core.config import ModelConfig  # noqa: E402
from a2fseg_cli.core.device import choose_compute  # noqa: E402
from a2fseg_cli.core.presets import NETWORKS  # noqa: E402
from a2fseg_cli.files import atomic_write_text, json_text  # noqa: E402
from a2fseg_cli.training.data import load_samples  # noqa: E402
from a2fseg_cli.training.loop import Setup, Trainer  # noqa: E402
from a2fseg_cli.training.run_folder import RunFolder  # noqa: E402
from a2fseg_cli.training.settings import network_and_recipe  # noqa: E402
from a2fseg_cli.training.train import Epoch, Listener  # noqa: E402

EPOCHS = 8  # two validations each (every fourth epoch), and a checkpoint every eighth of the time
MEASURED_PATIENTS = 4
# mm to a crop that holds a whole brain; smaller edges than 48 would be 2 voxels at the deepest of five stages.
CROPS = {2.0: (80, 96, 80), 3.0: (48, 64, 48)}


@dataclass(frozen=True)
class Plan:
    """What is trained, and how.

    Attributes:
        data: Folder of the patients.
        split: JSON with train, validation and test.
        folder: Of all runs and of the table.
        networks: Names.
        minutes: Budget of each training, of CPU time a thread.
        seeds: Trainings of each network.
        threads: Of a training.
        spacing_mm: Working voxel.
        part: The list of the split that is scored.
        cache: Where preprocessed patients lie.
    """

    data: Path
    split: Path
    folder: Path
    networks: Sequence[str]
    minutes: float
    seeds: int
    threads: int
    spacing_mm: float
    part: str
    cache: Path

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all networks share."""
        return {"spacing_mm": self.spacing_mm, "patch_size": CROPS[self.spacing_mm]}

    def run(self, network: str, seed: int) -> Path:
        """Return the folder of one training."""
        return self.folder / f"{network}-{seed}"

    def iterations(self, network: str) -> int:
        """Return the steps of an epoch that fit into the budget."""
        return max(1, round(60 * self.minutes * self.threads / read(self.folder / "seconds.json")[network] / EPOCHS))


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; an empty one where there is no file."""
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return values


def measure_steps(plan: Plan, repeats: int = 10, warm_up: int = 3) -> None:
    """Write the CPU seconds of a step (median, all threads) of each network to `seconds.json`, where they are missing.

    The networks take turns, so that what else runs on the machine slows all of them alike.
    """
    known = read(plan.folder / "seconds.json")
    if not (missing := [name for name in plan.networks if name not in known]):
        return
    cases = {case.name: case for case in find_cases(plan.data, ModelConfig().modalities)}
    names = read_split(plan.split)["train"][:MEASURED_PATIENTS]
    trainers = {}
    for name in missing:
        config, recipe = network_and_recipe("tiny", {"network": name, **plan.shared})
        samples = load_samples([cases[name] for name in names], config, plan.cache, lambda *_: None)
        setup = Setup(config, replace(recipe, epochs=1), samples, [], RunFolder(plan.folder), choose_compute("cpu"))
        trainers[name] = Trainer(setup)
    seconds: dict[str, list[float]] = {name: [] for name in missing}
    for turn in range(warm_up + repeats):
        for name, trainer in trainers.items():
            began = time.process_time()
            trainer.step()
            if turn >= warm_up:
                seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    atomic_write_text(plan.folder / "seconds.json", json_text(known | medians))


def train_one(plan: Plan, network: str, seed: int) -> None:
    """Train one network, or go on with it; the CPU seconds of training and validation go to its `cpu.json`."""
    run = plan.run(network, seed)
    spent = read(run / "cpu.json").get("seconds", 0.0)
    clock = {"began": time.process_time()}

    def prepared(*_: Any) -> None:  # reading and preparing the patients is not counted
        clock["began"] = time.process_time()

    def report(epoch: Epoch) -> None:
        seconds = spent + time.process_time() - clock["began"]
        atomic_write_text(run / "cpu.json", json_text({"seconds": seconds}))
        score = "" if epoch.score is None else f", validation {epoch.score:.4f}"
        print(f"{run.name} epoch {epoch.number} of {EPOCHS}: loss {epoch.loss:.3f}{score}", file=sys.stderr, flush=True)

    a2fseg_cli.train(
        plan.data, run, preset="tiny", network=network, seed=seed, split=plan.split, cache=plan.cache, device="cpu",
        epochs=EPOCHS, iterations_per_epoch=plan.iterations(network), resume=(run / "last.ckpt").exists(),
        listener=Listener(preprocessed=prepared, report=report), **plan.shared,
    )  # fmt: skip
    atomic_write_text(run / "done.json", json_text(read(run / "cpu.json")))


def train_all(plan: Plan, arguments: Sequence[str]) -> dict[str, str]:
    """Train what is not done, each in a process of its own, every network once before any a second time.

    Returns:
        Run to the reason why it has no weights.
    """
    failed = {}
    for seed in range(plan.seeds):
        for network in plan.networks:
            run = plan.run(network, seed)
            if not (run / "done.json").exists():
                command = [sys.executable, __file__, *arguments, "--one", f"{network}-{seed}"]
                if code := subprocess.run(command, check=False).returncode:
                    failed[run.name] = read(run / "failed.json").get("reason", f"exit code {code}")
    return failed


def score(plan: Plan, network: str, seed: int) -> dict[str, Any]:
    """Return the summary of an evaluation; what is scored already is taken over."""
    run = plan.run(network, seed)
    result = a2fseg_cli.evaluate(
        plan.data, subsets="all", split=f"{plan.split}:{plan.part}", weights=run / "best.safetensors", device="cpu",
        output=run / f"scores-{plan.part}",
    )  # fmt: skip
    return dict(result.summary)


def table(plan: Plan, summaries: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Return a line a training: steps, CPU minutes, and the mean Dice in % of all subsets and patients."""
    rows = ["| network | seed | s a step | steps | CPU min | WT | TC | ET | mean |", "|---" * 9 + "|"]
    for (network, seed), summary in summaries.items():
        means = [100 * region["dice"] for region in summary["means_of_subset_means"].values()]
        steps = EPOCHS * plan.iterations(network)
        cpu = read(plan.run(network, seed) / "cpu.json")["seconds"] / 60
        second = read(plan.folder / "seconds.json")[network]
        cells = [network, str(seed), f"{second:.2f}", str(steps), f"{cpu:.1f}"]
        rows.append(f"| {' | '.join([*cells, *(f'{mean:.1f}' for mean in (*means, statistics.mean(means)))])} |")
    return "\n".join(rows)


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spacing", type=float, choices=CROPS, default=3.0)
    parser.add_argument("--part", default="test", help="list of the split that is scored")
    parser.add_argument("--cache", type=Path, help="preprocessed patients (default: in the output folder)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Read the options, train, score and print the table; or, with `--one`, train one network."""
    given = options()
    torch.set_num_threads(given.threads)
    plan = Plan(
        given.data, given.split, given.output, given.networks, given.minutes, given.seeds, given.threads,
        given.spacing, given.part, given.cache or given.output / "cache",
    )  # fmt: skip
    if given.one:
        network, _, seed = given.one.rpartition("-")
        try:
            train_one(plan, network, int(seed))
        except a2fseg_cli.A2FSegError as error:
            atomic_write_text(plan.run(network, int(seed)) / "failed.json", json_text({"reason": str(error)}))
            raise
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    measure_steps(plan)
    failed = train_all(plan, sys.argv[1:])
    runs = [(network, seed) for seed in range(plan.seeds) for network in plan.networks]
    summaries = {key: score(plan, *key) for key in runs if plan.run(*key).name not in failed}
    text = "\n".join([table(plan, summaries), "", *(f"{run}: no weights: {why}" for run, why in failed.items())])
    atomic_write_text(plan.folder / "table1.md", text)
    print(text)


if __name__ == "__main__":
    main()
