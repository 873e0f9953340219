#!/usr/bin/env bash
# Makes the environment of linear-relational 0.6.2, which does not import under the transformers that lrc_tl needs.
# Prints the Python to give to head_to_head.py. Usage: make_environment.sh [FOLDER]
set -euo pipefail
folder="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/lrc_tl/peer}"
if [ ! -e "$folder/complete" ]; then
    mkdir -p "$folder"
    "${PYTHON:-python3}" -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet \
        torch==2.13.0 transformers==4.53.3 linear-relational==0.6.2 scikit-learn >&2
    touch "$folder/complete"
fi
echo "$folder/venv/bin/python"
