#!/usr/bin/env bash
# Train the classifier. Options: train.sh --help
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec "$SCRIPT_DIR/python.sh" "$SCRIPT_DIR/train.py" "$@"
