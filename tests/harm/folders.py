"""Folders and tables of patients in which something is missing, twice or unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harm.commands import to_output, write
from harm.files import label_map, nifti
from harm.kinds import Kind


def _found(name: str, words: tuple[str, ...], files: Mapping[str, bytes], code: int = 3, **more: Any) -> Kind:
    """A folder `data` to segment."""

    def build(folder: Path) -> Sequence[object]:
        (folder / "data").mkdir()
        for file, content in files.items():
            write(folder / "data" / file, content)
        return ["predict", folder / "data", *to_output(folder)]

    return Kind("folder or table", name, code, words, build, **more)


def _table(name: str, words: str, text: str | bytes, **more: Any) -> Kind:
    """A table of patients; beside it lies a good image, `a.nii`."""

    def build(folder: Path) -> Sequence[object]:
        write(folder / "a.nii", nifti())
        table = write(folder / "patients.csv", text if isinstance(text, bytes) else text.encode())
        return ["predict", table, *to_output(folder)]

    return Kind("folder or table", name, 3, (words,), build, **more)


def _unreadable_folder(folder: Path) -> Sequence[object]:
    write(folder / "data" / "t1.nii", nifti())
    (folder / "data").chmod(0)
    return ["predict", folder / "data", *to_output(folder)]


def _unreadable_table(folder: Path) -> Sequence[object]:
    write(folder / "patients.csv", b"case,t1\nA,a.nii\n").chmod(0)
    return ["predict", folder / "patients.csv", *to_output(folder)]


def folder_kinds() -> Iterator[Kind]:
    def missing(name: str) -> Callable[[Path], Sequence[object]]:
        return lambda folder: ["predict", folder / name, *to_output(folder)]

    group = "folder or table"
    good = nifti()
    yield Kind(group, "missing folder", 3, ("nowhere: no such folder",), missing("nowhere"))
    yield Kind(group, "a name of 300 letters", 3, ("n" * 300,), missing("n" * 300))
    yield Kind(group, "unreadable folder", 3, ("data", "cannot be read"), _unreadable_folder, by_permission=True)
    yield Kind(group, "unreadable table", 3, ("patients.csv: cannot be read",), _unreadable_table, by_permission=True)
    yield _found("empty folder", ("data: no image found", "Looked for", "flair, fla"), {})
    yield _found("folder without images", ("data: no image found", "BIDS"), {"notes.txt": b"x", "report.pdf": b"x"})
    yield _found("cohort without images", ("no image found",), {"P1/a.txt": b"x", "P2/b.txt": b"x"})
    yield _found("only a segmentation", ("no image found",), {"P1_seg.nii": nifti(label_map())})
    yield _found("names that name no modality", ("no image found",), {"scan1.nii": good, "scan2.nii": good})
    twice = ("2 candidates for t1", "a_t1.nii", "t1w.nii.gz", "Keep one")
    yield _found("two candidates for a modality", twice, {"a_t1.nii": good, "t1w.nii.gz": good})
    yield _found(
        "an image among them is damaged", ("data/t2.nii", "no NIfTI"), {"t1.nii": good, "t2.nii": b"text" * 99}
    )
    yield _found(
        "patients, and a file to write", ("2 patients", "give a folder"), {"A/t1.nii": good, "B/t1.nii": good}, 2
    )
    yield _table("unknown column", "patients.csv, line 1: unknown column 'pet'", "case,t1,pet\nA,a.nii,\n")
    yield _table("two columns for a modality", "patients.csv, line 1: two columns for t1", "case,t1,t1n\nA,a.nii,\n")
    yield _table("no column case", "patients.csv, line 1: no column case", "t1,t2\na.nii,\n")
    yield _table("missing file in the table", "b.nii: no such file", "case,t1\nA,b.nii\n")
    yield _table(
        "duplicate case", "patients.csv, line 3: case A stands in the table twice", "case,t1\nA,a.nii\nA,a.nii\n"
    )
    yield _table("no case", "patients.csv: no case below the column names", "case,t1\n")
    yield _table("empty table", "patients.csv: an empty table", "")
    yield _table("case without an image", "patients.csv, line 2: case A has no image", "case,t1\nA,\n")
    yield _table("row with too many cells", "patients.csv, line 2: 3 cells, expected 2", "case,t1\nA,a.nii,b.nii\n")
    yield _table("case that leads elsewhere", "patients.csv, line 2: the case is named '../A'", "case,t1\n../A,a.nii\n")
    yield _table("bytes that are no text", "patients.csv: no CSV table in UTF-8", b"case,t1\n\xff\xfe,a.nii\n")
    yield _table("NUL in a path", "patients.csv: no CSV table in UTF-8 (a byte of zero)", "case,t1\nA,a\0.nii\n")
    yield _table("quote that never ends", "patients.csv: no CSV table", 'case,t1\nA,"a.nii\n')
