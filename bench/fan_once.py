"""Runs an example on many hosts at once from one process, through the Python API.

python bench/fan_once.py EXAMPLE HOST...
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cvl.runners import DockerContextRunner


def main() -> int:
    example, *hosts = sys.argv[1:]
    with ThreadPoolExecutor(len(hosts)) as pool:
        codes = list(pool.map(partial(run, example), hosts))
    return max(codes)


def run(example: str, host: str) -> int:
    return int(DockerContextRunner().run(example, "train", host=host, fetch=False))


if __name__ == "__main__":
    sys.exit(main())
