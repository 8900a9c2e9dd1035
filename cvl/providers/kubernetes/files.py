"""The example's files as keys of Secrets: packed, cut in pieces, with our scripts beside them.

So a Job is complete when it is made: it may wait for hours for its start, and needs nobody then.
What is too much for that is sent into its pods once they run (`sending.py`).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from cvl.container.contents import Contents, write_tar
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.spec import JobSpec
from cvl.core.units import size
from cvl.providers.kubernetes.manifest import CODE, COLLECT, ENTRY, MOST_SECRET

HERE = Path(__file__).parent
MOST = 16 << 20
"""Bytes of an example, packed: etcd, which keeps the Secrets, is made for small things."""
MOST_SENT = 2 << 30
"""Bytes that are sent through the API server, as many as come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The example's files: `keys` for Secrets, our scripts among them, and what is sent later.

    `archive` is what does not fit into Secrets, `size` its bytes; None where all does.
    """

    keys: Mapping[str, bytes]
    archive: IO[bytes] | None = None
    size: int = 0


def packed(contents: Contents, spec: JobSpec) -> Packed:
    """Return the files, packed. Raises `UsageError` for too many."""
    inputs = {f"cvl/work/{path}": file.read_bytes() for path, file in spec.inputs.items()}
    scripts = {name: (HERE / name).read_bytes() for name in (ENTRY, COLLECT)}
    tar = TemporaryFile()  # noqa: SIM115 - it goes with the last who holds it
    try:
        with gzip.GzipFile(fileobj=tar, mode="wb", mtime=0) as out:
            write_tar(out, contents.tree, contents.placed(), inputs)
        length = tar.tell()
        if length > MOST_SENT:
            raise _too_much(contents, length)
    except BaseException:
        tar.close()
        raise
    if length > MOST:
        return Packed(keys=scripts, archive=tar, size=length)
    with tar:
        tar.seek(0)
        return Packed(keys={**scripts, **pieces(tar.read())})


def _too_much(contents: Contents, length: int) -> UsageError:
    return UsageError(
        f"the example's files are {size(length)} packed, more than the {size(MOST_SENT)} "
        "that travel to a cluster",
        "put the large ones into the image, on a volume (--volume CLAIM:/PATH) or into S3, "
        f"and name them in .cvlignore; the largest: {', '.join(largest(contents))}",
    )


def pieces(data: bytes) -> Mapping[str, bytes]:
    """Return `data` in pieces, each for a Secret of its own, by keys that sort in order."""
    starts = range(0, len(data), MOST_SECRET)
    return {f"{CODE}{n:02}": data[at : at + MOST_SECRET] for n, at in enumerate(starts)}


def largest(contents: Contents) -> list[str]:
    """Return the names of the largest files."""
    sizes = sorted(((entry.size, name) for name, _, entry in contents.placed()), reverse=True)
    return [f"{name} ({size(count)})" for count, name in sizes[:3]]
