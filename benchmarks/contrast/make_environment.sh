#!/usr/bin/env bash
# Makes the environment of repeng 0.4.0 and steering-vectors 0.12.2. repeng does not import with NumPy 2, and
# steering-vectors asks for transformers below 5 but runs with 5: both come without their dependencies, so that torch
# and transformers are the same on both sides.
# Prints the Python to give to contrast_peers.py. Usage: make_environment.sh [FOLDER]
set -euo pipefail
folder="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/lrc_tl/contrast}"
if [ ! -e "$folder/complete" ]; then
    mkdir -p "$folder"
    "${PYTHON:-python3}" -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet \
        torch==2.13.0 transformers==5.23.0 numpy==1.26.4 scikit-learn gguf==0.19.0 tqdm >&2
    "$folder/venv/bin/pip" install --quiet --no-deps repeng==0.4.0 steering-vectors==0.12.2 >&2
    touch "$folder/complete"
fi
echo "$folder/venv/bin/python"
