"""A real JupyterLab in a headless Chromium, with one notebook."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from chromium import browser, until

ROOT = ".lrc-explorer"


@contextmanager
def notebook(program, cells, *, width=1280, height=1100):
    """A page of JupyterLab with a notebook of these cells, all of them run; its server ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _write(Path(folder, "explorer.ipynb"), cells)
        token = secrets.token_hex()
        environment = {**os.environ, "JUPYTER_CONFIG_DIR": folder, "JUPYTERLAB_SETTINGS_DIR": folder}
        environment |= {
            "JUPYTER_DATA_DIR": folder,
            "JUPYTER_RUNTIME_DIR": folder,
            "JUPYTERLAB_WORKSPACES_DIR": folder,
        }
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
            "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]  # fmt: skip
        with Path(folder, "log").open("w") as sink:
            server = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, cwd=folder)
        try:
            address = until(lambda: _address(folder), "JupyterLab", seconds=60)
            with browser(program, width=width, height=height) as page:
                page.dark(False)
                page.go(f"{address}lab/tree/explorer.ipynb?token={token}")
                page.until("[...(window.jupyterapp?.shell?.widgets('main') ?? [])].length", seconds=60)
                page.js("window.panel = [...window.jupyterapp.shell.widgets('main')][0], 0")
                page.until("panel.context?.isReady && Boolean(panel.sessionContext.session?.kernel)", seconds=60)
                page.click(".jp-Notebook .jp-Cell .cm-content")
                page.until("window.jupyterapp.shell.currentWidget === panel")
                page.js("window.jupyterapp.shell.collapseLeft()")
                page.js("window.jupyterapp.commands.execute('notebook:run-all-cells'), 0")
                yield page
        finally:
            server.terminate()
            server.wait(30)


def _write(path, cells):
    made = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "source": cell,
            "outputs": [],
            "execution_count": None,
        }
        for n, cell in enumerate(cells)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def _address(folder):
    for file in Path(folder).glob("jpserver-*.json"):
        try:
            address = json.loads(file.read_text())["url"]
            with urllib.request.urlopen(f"{address}api", timeout=5):
                return address
        except (ValueError, KeyError, urllib.error.URLError):
            time.sleep(0.1)
    return None


def theme(page, name):
    """Change JupyterLab's own theme."""
    page.js(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})")
    page.until(f"document.body.dataset.jpThemeLight === '{'true' if name == 'Light' else 'false'}'")


def outputs(page):
    """What the cells printed, errors too."""
    return page.js(
        "[...document.querySelectorAll('.jp-OutputArea-output')].map((node) => node.innerText).join('\\n')"
    )


def done(page, *, seconds=60):
    """Wait until the explorer has answered."""
    page.until(f"document.querySelector('{ROOT}')?.dataset.busy === 'false'", seconds=seconds)
