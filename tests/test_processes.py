"""Several processes train one network as one would: by torchrun and gloo, through the command."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from training_toys import RECIPE, trainer

from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.processes import Processes, device_of_process, join_processes, restarted
from a2fseg_cli.weights.file_format import load_weights

STEPS = 6


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients of two modalities with one lesion each; `b` lacks T1."""
    folder = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(2)
    for index, name in enumerate("abcde"):
        brain = np.zeros((16, 20, 18), np.float32)
        brain[2:-2, 2:-2, 2:-2] = random.uniform(50, 60, (12, 16, 14))
        lesion = np.zeros(brain.shape, np.uint8)
        lesion[4 + index : 9 + index, 6:12, 5:11] = 1
        files = {"t1": brain - 20 * lesion, "flair": brain + 40 * lesion, "seg": lesion}
        (folder / name).mkdir()
        for kind, array in files.items():
            if (name, kind) != ("b", "t1"):
                sitk.WriteImage(sitk.GetImageFromArray(array), folder / name / f"{name}_{kind}.nii.gz")
    return folder


OPTIONS = [
    "--preset", "tiny", "--modalities", "t1,flair", "--labels", "lesion=1", "--features", "4,8", "--patch-size", "8",
    "--spacing", "1", "--epochs", "2", "--iterations", str(STEPS // 2), "--batch-size", "2", "--device", "cpu",
    "--precision", "fp32",
]  # fmt: skip


def write_split(folder: Path) -> Path:
    split = folder / "split.json"
    split.write_text(json.dumps({"train": ["a", "b", "c"], "validation": ["d", "e"]}))
    return split


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(cohort: Path, tmp_path: Path, call: Callable[..., int]) -> None:
    """Loss, validation and weights agree to 1e-4: two processes under torchrun, and one, this one.

    Each process computes the gradients of one of the two crops, and their sum is the batch's, but floats are summed
    in another order: 1e-7 relative a step, which six steps of a network that is not yet settled may enlarge.
    """
    arguments = ["train", str(cohort), *OPTIONS, "--split", str(write_split(tmp_path)), "-o"]
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "a2fseg_cli", *arguments,
         str(tmp_path / "two")],
        capture_output=True, text=True, timeout=180, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert call(*arguments, tmp_path / "one") == 0
    tables = [list(csv.DictReader((tmp_path / run / "metrics.csv").read_text().splitlines())) for run in ("one", "two")]
    assert len(tables[0]) == len(tables[1]) == 2
    for alone, together in zip(*tables, strict=True):
        for name in alone.keys() - {"hours"}:
            assert float(together[name] or 0) == pytest.approx(float(alone[name] or 0), rel=1e-4), name
    assert float(tables[0][1]["loss"]) != float(tables[0][0]["loss"])
    weights = [load_weights(tmp_path / run / "last.safetensors", parameter_shapes)[1] for run in ("one", "two")]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=2e-3, atol=2e-3, err_msg=name)  # stored in float16
    assert "2 processes" in two.stderr
    assert two.stderr.count("epoch 2 step 6") == 1, "only the first process speaks"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_the_group_is_left_when_python_ends() -> None:
    """A thread of gloo that is left may want the interpreter when it is gone, which aborts the process."""
    script = """
import pathlib, torch
from torch import distributed
from a2fseg_cli.training.processes import join_processes
together = join_processes()
weight = torch.nn.Parameter(torch.ones(2, 2))
weight.grad = torch.ones(2, 2)
torch.optim.SGD([weight]).step()
assert together.collect([0]) == [0, 0]
threads = lambda: [p.read_text().strip() for p in pathlib.Path("/proc/self/task").glob("*/comm")]
assert any("gloo" in name for name in threads()), threads()
distributed.destroy_process_group()
print(*[name for name in threads() if "gloo" in name])
"""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | variables | {"RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    for process in started:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, ""), out + err


def workers(torchrun: int) -> dict[str, int]:
    """Return the number of each process that torchrun has started, by rank."""
    found = {}
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        found |= {text.removeprefix("RANK="): int(child) for text in variables if text.startswith("RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the children of torchrun from /proc")
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_killed_process_ends_all_and_the_training_goes_on(restarts: int, cohort: Path, tmp_path: Path) -> None:
    """kill -9 on rank 1 after the first epoch: by `--resume`, or by torchrun's restart, it comes to the same end."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts),
               "-m", "a2fseg_cli", "train", str(cohort), *OPTIONS, "--split", str(write_split(tmp_path)),
               "-o", str(out)]  # fmt: skip
    for option, value in (("--epochs", "3"), ("--iterations", "40")):
        command[command.index(option) + 1] = value
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as run:
        while run.poll() is None and not (out / "metrics.csv").exists():
            time.sleep(0.02)
        os.kill(workers(run.pid)["1"], signal.SIGKILL)
        _, told = run.communicate(timeout=180)
    ours = [line for line in told.splitlines() if line.startswith(("Error:", "Terminated"))]
    assert len(ours) == 1, told
    assert (run.returncode == 0) == bool(restarts), told
    if not restarts:
        again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, env=environment)
        assert again.returncode == 0, again.stderr
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "40"), ("2", "80"), ("3", "120")]
    assert (out / "best.safetensors").is_file()


@pytest.mark.slow
def test_a_process_whose_other_is_gone_says_so_once() -> None:
    """Three processes of three machines, so that no torchrun ends them; one is killed, and one of two says it."""
    script = """
import sys, time
from a2fseg_cli.errors import A2FSegError
from a2fseg_cli.training.processes import join_processes
together = join_processes()
print("ready", flush=True)
try:
    for _ in range(1000):
        together.collect([0])
        time.sleep(0.05)
except A2FSegError as error:
    print(f"[{error}]", flush=True)
    time.sleep(3)  # rank 0 keeps what they count in
"""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    variables = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | variables | {"RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for rank in "012"
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    started[2].kill()
    told = sorted(process.communicate(timeout=60)[0] for process in started)
    assert told[:2] == ["", "[]\n"]
    assert told[2].startswith("[a process of this training is gone")
    assert "resume" in told[2]


def test_torchrun_says_that_it_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"batch_size 3: 2 processes share the crops of a step, .* a multiple of 2"):
        trainer(tmp_path, replace(RECIPE, batch_size=3), processes=Processes(0, 2))


def test_shares_and_their_order() -> None:
    """Three processes of seven items: 0 3 6, 1 4, 2 5; alone, what is collected is what was given."""
    shares = [list(Processes(rank, 3).share(range(7))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert Processes().collect([1, 2]) == [1, 2]
    assert (Processes().sum(1.5), Processes().from_first(2.5)) == (1.5, 2.5)


def test_each_process_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_of_process(name) for name in ("auto", "cuda:1", "cpu")] == ["auto", "cuda:1", "cpu"]
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of_process(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(UsageError, match=r"^device cuda:1: torchrun .* Take cuda"):
        device_of_process("cuda:1")


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="RANK is not set: start several processes with torchrun"):
        join_processes()
