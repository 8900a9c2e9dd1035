#!/usr/bin/env bash
# Write text with a trained model. Options: sample.sh --help
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec "$SCRIPT_DIR/python.sh" "$SCRIPT_DIR/sample.py" "$@"
