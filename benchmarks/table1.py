"""Table 1 of the paper on your patients: every network from an equal budget of computing, on one split and one metric.

    python benchmarks/table1.py DATA --split FILE -o FOLDER [--minutes 20] [--seeds 1] [--threads 1] [--spacing 3]
        [--also FILE:LIST ...]

Same patients, same crops, same recipe (that of `tiny`, which was chosen for a2fseg), same sampling of subsets. The
budget is of computing, not of the clock, so that other work on the machine favours nobody: first the CPU seconds that
a step of each network takes are measured, the networks taking turns, and each gets as many steps as fit into the
minutes. Validation comes on top, equally often for each. A network that is done is not trained again, one that was
interrupted goes on: start the same command again, with the same budget, patients and voxels (FOLDER/plan.json). Prints
Markdown, and writes it to FOLDER/table1.md: budgets and means, a table a region with what can be told from the best,
and what a patient takes; FOLDER/table1 has the forest plot and the numbers. Of several seeds, a patient's score is the
mean of the trainings; a table more has each training's means and what differs by more than trainings do. `--also` takes
more lists of patients, such as those with a single sequence, each with tables of its own. Ends with 1 where a training
has no weights.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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

import networks  # noqa: E402
import torch  # noqa: E402
from trainings import trainings_table  # noqa: E402

import a2fseg_cli  # noqa: E402
from a2fseg_cli.cases.case_lists import read_split, split_part  # noqa: E402
from a2fseg_cli.cases.discovery import find_cases  # noqa: E402
from a2fseg_cli.core.config import ModelConfig  # noqa: E402
from a2fseg_cli.core.device import choose_compute  # noqa: E402
from a2fseg_cli.core.presets import NETWORKS  # noqa: E402
from a2fseg_cli.evaluation.comparison import Comparison  # noqa: E402
from a2fseg_cli.evaluation.comparison_outputs import plain_values, write_comparison  # noqa: E402
from a2fseg_cli.evaluation.formats import markdown  # noqa: E402
from a2fseg_cli.evaluation.method_tables import all_tables  # noqa: E402
from a2fseg_cli.evaluation.patient_scores import PatientScores  # noqa: E402
from a2fseg_cli.files import atomic_write_text, json_text  # noqa: E402
from a2fseg_cli.training.data import load_samples  # noqa: E402
from a2fseg_cli.training.loop import Setup, Trainer  # noqa: E402
from a2fseg_cli.training.run_folder import LAST, RunFolder  # noqa: E402
from a2fseg_cli.training.settings import network_and_recipe  # noqa: E402
from a2fseg_cli.training.train import Epoch, Listener  # noqa: E402
from a2fseg_cli.weights.file_format import inspect_weights  # noqa: E402

PLAN = "plan.json"
EPOCHS = 8  # two validations each (every fourth epoch), and a checkpoint every eighth of the time
MEASURED_PATIENTS = 4
FAILED = "failed.json"
MEASURE = "seconds"  # in place of a run's name
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
        also: More lists that are scored, `FILE:LIST`.
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
    also: Sequence[str] = ()

    @property
    def lists(self) -> dict[str, str]:
        """Name to `FILE:LIST` of all that is scored, `part` first."""
        return {text.rpartition(":")[2]: text for text in (f"{self.split}:{self.part}", *self.also)}

    @property
    def budget(self) -> dict[str, Any]:
        """What all trainings of a folder have in common, as plain values: a table of two budgets would compare them."""
        return {
            "minutes": self.minutes, "threads": self.threads, "spacing_mm": self.spacing_mm, "epochs": EPOCHS,
            "split": read_split(self.split),
        }  # fmt: skip

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all networks share."""
        return {"spacing_mm": self.spacing_mm, "patch_size": CROPS[self.spacing_mm]}

    def run(self, network: str, seed: int) -> Path:
        """Return the folder of one training."""
        return self.folder / f"{network}-{seed}"

    def iterations(self, network: str) -> int:
        """Return the steps of an epoch that fit into the budget."""
        second = float(read(self.folder / "seconds.json")[network])
        return max(1, round(60 * self.minutes * self.threads / second / EPOCHS))


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; an empty one where there is no file."""
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return values


def check_budget(plan: Plan) -> None:
    """Write what the trainings of the folder have in common. Raises: SystemExit where it is something else."""
    known = read(plan.folder / PLAN)
    if differing := [name for name, value in plan.budget.items() if known.get(name, value) != value]:
        sys.exit(f"{plan.folder / PLAN} has another {', '.join(differing)}. Take those, or another folder.")
    atomic_write_text(plan.folder / PLAN, json_text(plan.budget))


def check_lists(plan: Plan) -> None:
    """Refuse now what could not be scored hours later. Raises: SystemExit where a list or a patient is not there."""
    try:
        known = {case.name for case in find_cases(plan.data, ModelConfig().modalities)}
        named = {text: split_part(text)[1] for text in plan.lists.values()}
    except a2fseg_cli.A2FSegError as error:
        sys.exit(str(error))
    for text, names in named.items():
        if lacking := [name for name in names if name not in known]:
            sys.exit(f"{text} names {', '.join(lacking[:3])}: not found in {plan.data}")


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
    run, parent = plan.run(network, seed), os.getppid()
    (run / FAILED).unlink(missing_ok=True)
    spent = read(run / "cpu.json").get("seconds", 0.0)
    clock = {"began": time.process_time()}

    def prepared(*_: Any) -> None:  # reading and preparing the patients is not counted
        clock["began"] = time.process_time()

    def stepped(_: float) -> None:  # else the same command, started again, would train the same run beside it
        if os.getppid() != parent:
            sys.exit(f"{run.name}: the command that started this training has ended")

    def tell(epoch: Epoch) -> None:
        seconds = spent + time.process_time() - clock["began"]
        atomic_write_text(run / "cpu.json", json_text({"seconds": seconds}))
        score = "" if epoch.score is None else f", validation {epoch.score:.4f}"
        print(f"{run.name} epoch {epoch.number} of {EPOCHS}: loss {epoch.loss:.3f}{score}", file=sys.stderr, flush=True)

    a2fseg_cli.train(
        plan.data, run, preset="tiny", network=network, seed=seed, split=plan.split, cache=plan.cache, device="cpu",
        epochs=EPOCHS, iterations_per_epoch=plan.iterations(network), resume=(run / "last.ckpt").exists(),
        listener=Listener(preprocessed=prepared, stepped=stepped, report=tell), **plan.shared,
    )  # fmt: skip
    atomic_write_text(run / "done.json", json_text(read(run / "cpu.json")))


def in_its_own_process(arguments: Sequence[str], run: str) -> int:
    """Train one network, or go on with it, or measure the steps; return the exit code."""
    return subprocess.run([sys.executable, __file__, *arguments, "--one", run], check=False).returncode


def train_all(plan: Plan, arguments: Sequence[str]) -> dict[str, str]:
    """Train what is not done, each in a process of its own, every network once before any a second time.

    Returns:
        Run to the reason why it has no weights.
    """
    failed = {}
    for seed in range(plan.seeds):
        for network in plan.networks:
            run = plan.run(network, seed)
            if not (run / "done.json").exists() and (code := in_its_own_process(arguments, run.name)):
                failed[run.name] = read(run / FAILED).get("reason", f"exit code {code}")
    return failed


def weights_of(plan: Plan, seed: int) -> dict[str, Path]:
    """Return the best weights of each network, of those that have some."""
    files = {network: plan.run(network, seed) / "best.safetensors" for network in plan.networks}
    return {network: file for network, file in files.items() if (file.parent / "done.json").exists()}


def score(plan: Plan, part: str) -> dict[str, list[Sequence[PatientScores]]]:
    """Return each network's scores of a list's patients, of each of its trainings; what is scored is taken over."""
    seeds: dict[str, list[Sequence[PatientScores]]] = {}
    for seed in range(plan.seeds):
        if weights := weights_of(plan, seed):
            result = a2fseg_cli.evaluate(
                plan.data, subsets="all", split=plan.lists[part], weights=weights, device="cpu",
                output=plan.folder / f"scores-{part}-{seed}",
            )  # fmt: skip
            result.raise_for_failed()
            for network, patients in result.methods.items():
                seeds.setdefault(network, []).append(patients)
    return {network: seeds[network] for network in plan.networks if network in seeds}


def mean_over_seeds(seeds: Sequence[Sequence[PatientScores]]) -> list[PatientScores]:
    """Return the patients with the mean of their scores over trainings that scored the same subsets."""
    return [
        replace(
            of_patient[0],
            rows=tuple(
                replace(
                    rows[0], values={key: statistics.mean(row.values[key] for row in rows) for key in rows[0].values}
                )
                for rows in zip(*(scores.rows for scores in of_patient), strict=True)
            ),
        )
        for of_patient in zip(*seeds, strict=True)
    ]


def region_means(comparison: Comparison, name: str) -> dict[str, float]:
    """Return the mean Dice in % over the subsets, of each region and, as `mean`, of all."""
    row = comparison.rows[-1]
    means = {region: 100 * comparison.mean(name, "dice", row, region) for region in comparison.regions}
    return means | {"mean": statistics.mean(means.values())}


def means_of_trainings(
    trainings: Mapping[str, Sequence[Sequence[PatientScores]]],
) -> dict[str, dict[str, list[float]]]:
    """Return region to network to the mean Dice in % of each training, over the patients that all trainings have."""
    flat = {(network, seed): of for network, seeds in trainings.items() for seed, of in enumerate(seeds)}
    every = Comparison({f"{network}-{seed}": of for (network, seed), of in flat.items()}, ModelConfig())
    table: dict[str, dict[str, list[float]]] = {}
    for network, seed in flat:
        for region, mean in region_means(every, f"{network}-{seed}").items():
            table.setdefault(region, {}).setdefault(network, []).append(mean)
    return table


def budget_table(plan: Plan, trainings: Mapping[str, Sequence[Sequence[PatientScores]]], comparison: Comparison) -> str:
    """Return a line a network: what it was given, and its mean Dice in % over the subsets, with 95 % intervals.

    Args:
        plan: What was trained.
        trainings: Each network's scores, of each training.
        comparison: Their means.
    """
    heads = " | ".join(f"{region} (95 %)" for region in comparison.regions)
    rows = [
        f"| network | s a step | steps | CPU min | {heads} | mean |",
        "|---" * (5 + len(comparison.regions)) + "|",
    ]
    for network in comparison.names:
        done = [plan.run(network, seed) for seed in range(plan.seeds) if network in weights_of(plan, seed)]
        minutes = statistics.mean(read(run / "done.json")["seconds"] for run in done) / 60
        second = read(plan.folder / "seconds.json")[network]
        steps = {str(inspect_weights(run / LAST).card["steps"]) for run in done}  # done, not planned
        cells = [network, f"{second:.2f}", " or ".join(sorted(steps)), f"{minutes:.1f}"]
        for region in comparison.regions:
            of = network, "dice", comparison.rows[-1], region
            low, high = (100 * end for end in comparison.interval(*of))
            cells.append(f"{100 * comparison.mean(*of):.1f} ({low:.0f} to {high:.0f})")
        cells.append(f"{region_means(comparison, network)['mean']:.1f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", budget_note(plan, trainings, comparison)])


def budget_note(plan: Plan, trainings: Mapping[str, Sequence[Sequence[PatientScores]]], comparison: Comparison) -> str:
    """Return what the table of budgets rests on; arguments as of `budget_table`."""
    counts = {network: len(of) for network, of in trainings.items()}
    same, first = len(set(counts.values())) == 1, next(iter(counts.values()))
    each = f"{first} training{'s' * (first != 1)} of each network"
    if not same:
        each = "trainings: " + ", ".join(f"{network} {count}" for network, count in counts.items())
    return (
        f"{plan.minutes:g} CPU minutes of {plan.threads} thread{'s' * (plan.threads != 1)} a training, {each}, "
        f"{plan.spacing_mm:g} mm; {len(comparison.patients)} patients of `{plan.part}`, mean over "
        f"{len(comparison.subsets)} subsets. Intervals and tests: patients drawn or exchanged; how far off another "
        "training of the same network would be is in neither. CPU min holds validation too."
    )


def speed_table(plan: Plan) -> str:
    """Return parameters, arithmetic, seconds and memory a patient, measured where `speed.json` does not have them."""
    known, shape = read(plan.folder / "speed.json"), CROPS[plan.spacing_mm]
    for name in plan.networks:
        if name not in known:
            config, _ = network_and_recipe("tiny", {"network": name, **plan.shared})
            known[name] = networks.figures(config, shape, repeats=3)
            atomic_write_text(plan.folder / "speed.json", json_text(known))
    rows = [f"| network | parameters, million | {networks.HEAD} |", "|---" * 11 + "|"]
    for name in plan.networks:
        parameters = f"{known[name]['parameters'] / 1e6:.2f}"
        rows.append(f"| {' | '.join([name, parameters, *networks.cells(known[name])])} |")
    where = networks.where(known[plan.networks[0]]["precision"], shape, 3)
    return "\n".join([*rows, "", f"{where}. Saved: against a run of each subset by itself; 0 % is no shared work."])


def compare(plan: Plan, part: str, trainings: Mapping[str, Sequence[Sequence[PatientScores]]]) -> list[str]:
    """Write the tables and the forest plot of one list to `FOLDER/table1`, of further lists to `table1-LIST`.

    Args:
        plan: What was trained.
        part: Name of the list.
        trainings: Each network's scores of its patients, of each training.

    Returns:
        The Markdown of its tables.
    """
    comparison = Comparison({network: mean_over_seeds(of) for network, of in trainings.items()}, ModelConfig())
    differences = [d for key in ("dice", "hd95_mm") for d in comparison.differences(key)]
    tables = all_tables(comparison, differences, ("dice", "hd95"), "brats2020", True, {})
    summary = plain_values(comparison, differences, ("dice", "hd95"), "brats2020", {}, {})
    folder = "table1" if part == plan.part else f"table1-{part}"
    write_comparison(plan.folder / folder, comparison, differences, tables, summary)
    first = budget_table(plan, trainings, comparison) if part == plan.part else f"# {part}: more patients"
    between = [trainings_table(means_of_trainings(trainings))] if max(map(len, trainings.values())) > 1 else []
    return [first, *between, markdown(tables, summary["definition"])]


def report(plan: Plan, failed: Mapping[str, str]) -> str:
    """Write all tables and forest plots, and return the text of `table1.md`."""
    text = [f"{run}: no weights: {why}" for run, why in failed.items()]
    for part in plan.lists:
        if trainings := score(plan, part):
            text += compare(plan, part, trainings)
    text.append(speed_table(plan))
    atomic_write_text(plan.folder / "table1.md", "\n\n".join(text))
    return "\n\n".join(text)


def known_networks(text: str) -> list[str]:
    """Return the networks of a list with commas. Raises: ArgumentTypeError for one that is none, or named twice."""
    names = text.split(",")
    if not set(names) <= set(NETWORKS) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text}: expected some of {','.join(NETWORKS)}, each once")
    return names


def named_list(text: str) -> str:
    """Return `FILE:LIST` as it is. Raises: ArgumentTypeError where either is missing."""
    file, _, name = text.rpartition(":")
    if not file or not re.fullmatch(r"[\w.-]+", name):
        raise argparse.ArgumentTypeError(f"{text}: expected FILE:LIST, such as single.json:flair")
    return text


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--networks", type=known_networks, default=list(NETWORKS), help="such as a2fseg,rfnet")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spacing", type=float, choices=CROPS, default=3.0)
    parser.add_argument("--part", default="test", help="list of the split that is scored")
    parser.add_argument(
        "--also", type=named_list, action="append", default=[], metavar="FILE:LIST", help="one more list; repeatable"
    )
    parser.add_argument("--cache", type=Path, help="preprocessed patients (default: in the output folder)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    lists = [given.part, *(text.rpartition(":")[2] for text in given.also)]
    if len(set(lists)) != len(lists):
        parser.error(f"two lists of one name: {', '.join(lists)}")
    return given


def main() -> None:
    """Read the options, train, score and print the table; or, with `--one`, train one network."""
    given = options()
    torch.set_num_threads(given.threads)
    plan = Plan(
        given.data, given.split, given.output, given.networks, given.minutes, given.seeds, given.threads,
        given.spacing, given.part, given.cache or given.output / "cache", given.also,
    )  # fmt: skip
    if given.one == MEASURE:
        measure_steps(plan)
        return
    if given.one:
        network, _, seed = given.one.rpartition("-")
        try:
            train_one(plan, network, int(seed))
        except a2fseg_cli.A2FSegError as error:
            atomic_write_text(plan.run(network, int(seed)) / FAILED, json_text({"reason": str(error)}))
            raise
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    check_lists(plan)
    check_budget(plan)
    if code := in_its_own_process(sys.argv[1:], MEASURE):  # all networks at once take 2 GiB, which are then free again
        sys.exit(code)
    failed = train_all(plan, sys.argv[1:])
    print(report(plan, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
