"""The example's files as keys of Secrets: packed, cut in pieces, with our scripts beside them.

So a Job is complete when it is made: it may wait for hours for its start, and needs nobody then.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path

from cvl.container.contents import Contents, write_tar
from cvl.errors import UsageError
from cvl.kube.manifest import COLLECT, ENTRY, MOST_SECRET
from cvl.spec import JobSpec
from cvl.units import size

HERE = Path(__file__).parent
MOST = 16 << 20
"""Bytes of an example, packed: etcd, which keeps the Secrets, is made for small things."""


def packed(contents: Contents, spec: JobSpec) -> dict[str, bytes]:
    """Return the keys: our scripts, `code-00`, `code-01`. Raises `UsageError` for too much."""
    inputs = {f"cvl/work/{path}": file.read_bytes() for path, file in spec.inputs.items()}
    tar = io.BytesIO()
    with gzip.GzipFile(fileobj=tar, mode="wb", mtime=0) as out:
        write_tar(out, contents.tree, contents.placed(), inputs)
    data = tar.getvalue()
    if len(data) > MOST:
        raise UsageError(
            f"the example's files are {len(data) / (1 << 20):.1f} MiB packed, more than the "
            f"{MOST >> 20} MiB that travel to a cluster",
            "put the large ones into the image, on a volume (--volume CLAIM:/PATH) or into S3, "
            f"and name them in .cvlignore; the largest: {', '.join(largest(contents))}",
        )
    scripts = {name: (HERE / name).read_bytes() for name in (ENTRY, COLLECT)}
    return {**scripts, **pieces(data)}


def pieces(data: bytes) -> Mapping[str, bytes]:
    """Return `data` in pieces, each for a Secret of its own, by keys that sort in order."""
    starts = range(0, len(data), MOST_SECRET)
    return {f"code-{n:02}": data[at : at + MOST_SECRET] for n, at in enumerate(starts)}


def largest(contents: Contents) -> list[str]:
    """Return the names of the largest files."""
    sizes = sorted(((entry.size, name) for name, _, entry in contents.placed()), reverse=True)
    return [f"{name} ({size(count)})" for count, name in sizes[:3]]
