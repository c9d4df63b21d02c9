"""The mark of this tool in the label maps that it writes, by which its own result is told from an expert's truth.

Folders and names change; what stands in the header goes along, also when nibabel or ITK write the file again.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from a2fseg_cli import __version__

_MARK = f"a2fseg {__version__}"
_ANY_MARK = re.compile(rb"a2fseg \d+\.\d+")
_DESCRIP = slice(148, 228)  # the field `descrip` of NIfTI-1
_HEADER_BYTES = (
    1024  # in which a mark stands: NIfTI-2's `descrip` ends at 320, the texts of NRRD and MetaImage begin so
)


def marked(data: bytes, extension: str) -> bytes:
    """Return a file's bytes, before any gzip, with the mark: NIfTI's `descrip`, a comment in NRRD and MetaImage.

    Args:
        data: The file.
        extension: Which it is, lower case; one that has no place for a comment is returned as it is.
    """
    if extension in (".nii", ".nii.gz"):
        return data[: _DESCRIP.start] + _MARK.encode().ljust(80, b"\0") + data[_DESCRIP.stop :]
    nrrd = f"# {_MARK}\n"
    line = {".nrrd": nrrd, ".seg.nrrd": nrrd, ".mha": f"Comment = {_MARK}\n"}.get(extension, "")
    end = data.index(b"\n") + 1 if line else 0
    return data[:end] + line.encode() + data[end:]


def is_marked(path: Path) -> bool:
    """Whether this tool, in any version, wrote a file; False where it cannot be looked into."""
    try:
        with path.open("rb") as file:
            start = file.read(4 * _HEADER_BYTES)
        if start[:2] == b"\x1f\x8b":
            start = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(start, _HEADER_BYTES)
    except (OSError, zlib.error):
        return False
    return _ANY_MARK.search(start[:_HEADER_BYTES]) is not None
