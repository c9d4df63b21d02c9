"""Which option needs which: one table, one check, so that no option is accepted and then ignored.

Every option of every command has a row, or stands in `ALWAYS`: it has an effect whatever else is given. A test walks
through all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from a2fseg_cli.errors import A2FSegError, UsageError
from a2fseg_cli.modalities import BY_NAME


@dataclass(frozen=True)
class Rule:
    """What an option goes with. Names are those of the parameters; `name=value` is met by that value only.

    Attributes:
        needs: At least one of these is given too.
        without: None of these is.
        why: Why, for the message.
    """

    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    why: str = ""


class Command(TyperCommand):
    """A command that refuses an option given twice where one value counts, and options that would be ignored."""

    def make_parser(self, ctx: Any) -> Any:
        """Return the parser, which counts what it reads."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            parsed = parse(args)
            for option, count in Counter(parsed[2]).items():
                if count > 1 and isinstance(option, TyperOption) and not option.multiple and not _may_repeat(option):
                    raise UsageError(f"{_flag(option)} was given {count} times. Keep one.")
            return parsed

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser

    def invoke(self, ctx: Any) -> Any:
        """Check the options, then run the command; errors of the library name its parameters' flags."""
        check_options(ctx)
        try:
            return super().invoke(ctx)
        except A2FSegError as error:
            error.args = (with_flags(str(error), self.params),)
            raise


def _may_repeat(option: TyperOption) -> bool:
    """Whether an option says the same thing however often it is given."""
    return bool(option.count or (option.is_flag and not option.secondary_opts))


_PARTS = {"num_parts": Rule(needs=("part_id",)), "part_id": Rule(needs=("num_parts",))}
_IMAGES = tuple(BY_NAME)

RULES: dict[str, dict[str, Rule]] = {
    "predict": {
        **_PARTS,
        **{name: Rule(without=("source",)) for name in (*_IMAGES, "image")},
        "source": Rule(without=("image",)),
        "split": Rule(without=(*_IMAGES, "image"), why="It is for a cohort."),
        "channels": Rule(without=(*_IMAGES, "image"), why="A 4-D file is given by itself or by its folder."),
        "select": Rule(without=(*_IMAGES, "image"), why="It chooses among the files of a folder."),
        **{name: Rule(without=(*_IMAGES, "image"), why="It is for studies.") for name in ("series", "study", "prefer")},
        "ignore_unknown": Rule(without=(*_IMAGES, "image"), why="It is for folders."),
        "skip_existing": Rule(without=("overwrite", *_IMAGES, "image"), why="It is for a cohort."),
        "allow_skull": Rule(without=("brain_mask", "raw"), why="The brain is known then."),
        "on_mismatch": Rule(without=("raw",), why="Raw images are registered, whatever their grids."),
        "drop_unregistered": Rule(needs=("raw",)),
        "keep_prepared": Rule(needs=("raw",)),
        "verbose": Rule(without=("quiet",)),
        "scheduler": Rule(without=("dry_run",), why="Nothing is computed then."),
        "longitudinal": Rule(
            without=("num_parts", *_IMAGES, "image"), why="It is for several examinations, all of them in one process."
        ),
    },
    "view": {
        "labels": Rule(needs=("seg",)),
    },
    "prepare": {
        **{name: Rule(without=("source",)) for name in _IMAGES},
        "split": Rule(without=_IMAGES, why="It is for a cohort."),
        "select": Rule(without=_IMAGES, why="It chooses among the files of a folder."),
        **{name: Rule(without=_IMAGES, why="It is for studies.") for name in ("series", "study", "prefer")},
        "ignore_unknown": Rule(without=_IMAGES, why="It is for folders."),
        "skip_existing": Rule(without=("overwrite",)),
    },
    "evaluate": {
        **_PARTS,
        "all_subsets_": Rule(without=("subset",)),
        "predictions": Rule(without=("figure", "write_card"), why="Files are scored as they are."),
        **{
            name: Rule(
                without=("predictions", "write_card"), why="Files, and the network of a card, are scored as they are."
            )
            for name in ("remove_small", "fill_holes", "keep_tiny")
        },
        "prediction_labels": Rule(needs=("predictions",)),
        "nsd_tolerance": Rule(needs=("metrics=nsd",)),
        "compare": Rule(needs=("metrics=dice",), why="The published scores are Dice."),
        "kinds": Rule(needs=("metrics=dice",), why="Of each kind the mean Dice is given."),
        "figure": Rule(needs=("output",)),
        "write_card": Rule(needs=("all_subsets_",), why="The card holds the scores of all subsets."),
        "overwrite": Rule(needs=("output", "write_card")),
    },
    "train": {
        "fold": Rule(without=("split",), why="Both say who is trained on."),
        "epochs": Rule(without=("time_budget",), why="The schedule follows the time."),
    },
    "download-weights": {
        "list_": Rule(without=("from_file", "verify")),
        "from_file": Rule(without=("verify", "all_")),
        "all_": Rule(without=("name",)),
    },
}
# Whatever else is given, these have an effect.
ALWAYS: dict[str, frozenset[str]] = {
    "predict": frozenset(
        ("output", "raw", "reference", "brain_mask", "require", "case",
         "dry_run", "weights", "device", "precision", "window", "overlap", "tta", "threads", "deterministic", "labels",
         "regions", "probabilities", "uncertainty", "attention", "agreement", "preview", "report", "stats", "viewer",
         "layout", "label_file", "colours", "remove_small", "fill_holes", "keep_tiny", "fail_on_empty", "overwrite",
         "json_", "quiet")
    ),
    "prepare": frozenset(
        ("source", "output", "reference", "brain_mask", "drop_unregistered", "case", "threads", "scheduler",
         "overwrite", "json_", "quiet")
    ),
    "evaluate": frozenset(
        ("data", "subset", "split", "metrics", "policy", "labels", "output", "weights", "device", "precision", "window",
         "overlap", "tta", "threads", "scheduler", "json_", "quiet")
    ),
    # Of `weight_decay` the recipe knows whether its optimiser uses it, of `ablation` the configuration whether the
    # network has such parts.
    "train": frozenset(
        ("data", "output", "resume", "split", "preset", "network", "ablation", "sub_voxels", "modalities", "labels",
         "regions", "spacing", "features", "init_weights", "time_budget", "iterations", "patch_size", "batch_size",
         "optimizer", "learning_rate",
         "weight_decay", "random_subsets", "foreground_share", "foreground_weight", "dice_over", "draw", "augment",
         "mix_share", "scanner_share", "gradient_clip", "ema_decay", "seed", "name", "licence", "device", "precision",
         "threads", "cache", "workers", "scheduler", "quiet")
    ),
    "view": frozenset(("source", "output", "seg", "uncertainty", "select", "case", "overwrite", "quiet")),
    "report": frozenset(("source", "output", "seg", "stats", "labels", "select", "case", "overwrite", "json_")),
    "demo": frozenset(("output", "modalities", "seed", "device", "json_")),
    "info": frozenset(("weights", "json_")),
    "download-weights": frozenset(("name", "manifest", "verify", "allow_http", "json_", "quiet")),
}  # fmt: skip


def given_options(context: typer.Context) -> set[str]:
    """Return the names of the parameters that the user gave, on the command line or by the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and not source.name.startswith("DEFAULT")}


def check_options(context: typer.Context) -> None:
    """Refuse options of which one would be ignored. Raises: UsageError."""
    given = given_options(context)
    flags = {parameter.name or "": _flag(parameter) for parameter in context.command.params}
    for name, rule in RULES.get(context.info_name or "", {}).items():
        if not _met(name, given, context.params):
            continue
        why = f" {rule.why}" if rule.why else ""
        if clash := [other for other in rule.without if _met(other, given, context.params)]:
            named = ", ".join(_shown(other, flags) for other in clash)
            raise UsageError(f"{_shown(name, flags)} and {named} exclude each other.{why}")
        if rule.needs and not any(_met(other, given, context.params) for other in rule.needs):
            named = " or ".join(_shown(other, flags) for other in rule.needs)
            raise UsageError(f"{_shown(name, flags)} needs {named}.{why}")


def _met(name: str, given: Collection[str], values: Mapping[str, object]) -> bool:
    """Whether an option is given; of `name=value`, whether it has that value, or holds it among others."""
    name, _, wanted = name.partition("=")
    if wanted:
        return wanted in str(values[name]).replace(" ", "").split(",")
    return name in given


def _flag(parameter: object) -> str:
    options = [text for text in getattr(parameter, "opts", []) if text.startswith("--")]
    return options[0] if options else str(getattr(parameter, "name", "")).upper()


def _shown(name: str, flags: Mapping[str, str]) -> str:
    name, _, value = name.partition("=")
    return f"{flags.get(name, name)} {value}".strip()


def with_flags(message: str, parameters: Iterable[object]) -> str:
    """Return a message of the library with the flags that set what it names: `on_mismatch` becomes `--on-mismatch`.

    A parameter is told from a word of the sentence by its underscore, or by parentheses round it.
    """
    for parameter in parameters:
        name, flag = str(getattr(parameter, "name", "")).rstrip("_"), _flag(parameter)
        if flag.startswith("--") and name not in BY_NAME:  # "the images given (flair)" means the sequence
            pattern = rf"\b{name}\b" if "_" in name else rf"(?<=\(){name}(?=\))"
            message = re.sub(pattern, flag, message)
    return message
