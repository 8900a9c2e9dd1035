#!/usr/bin/env bash
# Build this example's Docker image. Options are those of `docker build`.
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec docker build --tag "${CVL_IMAGE:-cvl-$(basename "$SCRIPT_DIR")}" "$@" "$SCRIPT_DIR"
