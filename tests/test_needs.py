"""No option is accepted and then ignored: every parameter of every command has its place in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from a2fseg_cli.cli.main import app
from a2fseg_cli.cli.needs import ALWAYS, RULES

Run = Callable[..., tuple[int, str, str]]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def parameters(command: str) -> dict[str, Any]:
    return {p.name: p for p in COMMANDS[command].params if p.name != "help"}


def arguments_for(command: str, name: str) -> list[str]:
    """Return a command-line for one parameter; `name=value` gives that value."""
    name, _, value = name.partition("=")
    parameter = parameters(command)[name]
    if parameter.param_type_name == "argument":
        return [value or "x"]
    flag = next(text for text in parameter.opts if text.startswith("--"))
    return [flag] if parameter.is_flag else [flag, value or "1"]


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in COMMANDS for name in parameters(command)])
def test_every_parameter_has_its_place_in_the_table(command: str, name: str) -> None:
    """A new option has to be thought about: it always has an effect, or it needs or excludes others."""
    assert (name in ALWAYS.get(command, ())) != (name in RULES.get(command, {}))


def test_the_table_names_parameters_that_exist() -> None:
    for command, rules in RULES.items():
        known = parameters(command)
        named = {*ALWAYS.get(command, ()), *rules}
        named |= {other.partition("=")[0] for rule in rules.values() for other in (*rule.needs, *rule.without)}
        assert named <= set(known), command


@pytest.mark.parametrize(
    ("command", "name", "other"),
    [
        (command, name, other)
        for command, rules in RULES.items()
        for name, rule in rules.items()
        for other in rule.without
    ],
)
def test_options_that_exclude_each_other_are_refused(
    command: str, name: str, other: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    required = [
        part
        for parameter in COMMANDS[command].params
        if parameter.required and parameter.name not in (name.partition("=")[0], other.partition("=")[0])
        for part in arguments_for(command, parameter.name)
    ]
    code, out, err = run(command, *required, *arguments_for(command, name), *arguments_for(command, other))
    assert (code, out) == (2, "")
    assert "exclude each other" in err or "needs" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, rules in RULES.items() for name in rules if rules[name].needs]
)
def test_an_option_without_what_it_needs_is_refused(
    command: str, name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    required = [p for p in COMMANDS[command].params if p.required and p.name != name]
    given = [part for parameter in required for part in arguments_for(command, parameter.name)]
    given += ["--metrics", "hd95"] if "metrics=dice" in RULES[command][name].needs else []  # else it is there unasked
    code, out, err = run(command, *given, *arguments_for(command, name))
    assert (code, out) == (2, "")
    assert "needs" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "--flair", "a.nii", "--fla", "b.nii", "-o", "s.nii"),
        ("predict", "x", "-o", "one", "--output", "two"),
        ("evaluate", "x", "--policy", "nan", "--policy", "brats2020"),
        ("predict", "x", "-o", "s", "--tta", "--no-tta"),
    ],
)
def test_an_option_of_one_value_is_refused_when_given_twice(arguments: tuple[str, ...], run: Run) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "was given 2 times. Keep one." in err
