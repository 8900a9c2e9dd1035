"""No room but `providers/` and `runners/` knows a provider by its name."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from keyword import iskeyword
from pathlib import Path

import cvl

HERE = Path(cvl.__file__).parent
APART = ("providers", "runners", "testing", "tests", "_shipped")
NAMES = re.compile(
    r"lambda|sagemaker|kubernetes|k8s|kube|aws|amazon|amz|boto|cloudwatch|azure|gcloud|google",
    re.IGNORECASE,
)
SECRET_FILES = "host/upload/secret_files.py"
"""It names files that hold secrets, whoever's they are: they are never sent, to nobody."""


def places(path: Path) -> Iterator[str]:
    """Yield where a file names a provider: in code, texts, comments."""
    where, text = path.relative_to(HERE), path.read_text("utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if not iskeyword(token.string) and (found := NAMES.search(token.string)):
                yield f"{where}:{token.start[0]}: {found[0]}"
    else:
        lines = enumerate(text.splitlines(), 1)
        yield from (f"{where}:{number}: {line}" for number, line in lines if NAMES.search(line))


def test_nobody_else_knows_a_provider_by_its_name() -> None:
    files = [
        path
        for suffix in ("py", "sh", "awk")
        for path in HERE.rglob(f"*.{suffix}")
        if path.relative_to(HERE).parts[0] not in APART
    ]
    assert len(files) > 100
    named = [place for path in files for place in places(path)]
    assert [place for place in named if not place.startswith(SECRET_FILES)] == []
