"""The explorer's page without a kernel: a fake of anywidget's model in a headless Chromium."""

import json
from pathlib import Path

import lrc_tl.views as views

FOLDER = Path(views.__file__).parent
SCRIPT, STYLE = (FOLDER / name for name in ("explorer.js", "explorer.css"))
ROOT = ".lrc-explorer"

# What anywidget gives to `render`; `asked` keeps what the page wishes for.
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title><style>{style}</style></head>
<body><div id="host"></div><script type="module">
const [offer, wish, answer] = {given};
const listeners = {{}}, state = {{ offer, wish, answer }};
window.asked = [];
window.model = {{
  get: (name) => state[name],
  set: (name, value) => {{ state[name] = value; (listeners[`change:${{name}}`] || []).forEach((f) => f()); }},
  save_changes: () => window.asked.push(state.wish),
  on: (name, f) => (listeners[name] ||= []).push(f),
  off: (name, f) => {{ listeners[name] = (listeners[name] || []).filter((other) => other !== f); }},
}};
window.count = () => Object.values(listeners).flat().length;
const blob = new Blob([{script}], {{ type: "text/javascript" }});
window.module = await import(URL.createObjectURL(blob));
window.leave = window.module.default.render({{ model: window.model, el: document.getElementById("host") }});
window.ready = true;
</script></body></html>"""


def page_of(offer, wish, answer):
    """The page as HTML."""

    def inside_a_script(value):
        return json.dumps(value).replace("<", "\\u003c")

    return _PAGE.format(
        style=STYLE.read_text(encoding="utf-8"),
        given=inside_a_script([offer, wish, answer]),
        script=inside_a_script(SCRIPT.read_text(encoding="utf-8")),
    )


def show(page, folder, offer, wish, answer):
    """Open the page and wait until it is drawn."""
    file = Path(folder, "explorer.html")
    file.write_text(page_of(offer, wish, answer), encoding="utf-8")
    page.go(file.as_uri())
    page.until("window.ready === true")
