#!/usr/bin/env bash
# Judge a trained classifier on the test images. Options: evaluate.sh --help
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec "$SCRIPT_DIR/python.sh" "$SCRIPT_DIR/evaluate.py" "$@"
