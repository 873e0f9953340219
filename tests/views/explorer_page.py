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


# What a test's page offers, wishes for and is answered.
NAMES = ["France", "Japan", "<b>Italy</b>", *(f"country {number}" for number in range(12))]
OFFER = {
    "relation": "city in country", "model": "tiny", "layer": 1, "n_layers": 3, "concepts": NAMES,
    "most_tokens": 200,
}  # fmt: skip
WISH = {
    "number": 1, "text": "Lyon is in", "subject": "Lyon", "remove": "France", "add": "Japan", "place": "subject",
    "layers": "all", "first_layer": 1, "last_layer": 2, "strength": 0.005, "n_tokens": 5, "view": "edit",
}  # fmt: skip
STRENGTHS = [10 ** (step / 4 - 4) for step in range(17)]
PROMPT = ["<bos>", "Lyon", " is", " in"]


def objects(first, score):
    return {
        "subject": "Lyon", "left_out": 2,
        "objects": [
            {"name": name, "score": score if name == first else -float(place), "p": 0.5 if name == first else 0.01}
            for place, name in enumerate(NAMES)
        ],
    }  # fmt: skip


def text(new, *, edited):
    return {
        "prompt": PROMPT, "new": new, "special": [0], "read_at": 1, "text": "".join(new),
        "shades": {"Japan": [900.0, -2.0, 1.0, 0.0, 4.0, None], "France": [900.0, 8.0, 1.0, 0.0, 4.0, 1.0]},
        "instead": new, "changed": [edited, False], "kl": 0.25 if edited else None,
    }  # fmt: skip


ANSWER = {
    "number": 1, "status": "done", "doing": "", "error": None, "code": "print(1)",
    "fresh": ["code", "before", "after", "before_text", "after_text", "curve"],
    "before": objects("France", 20.0), "after": objects("Japan", 31.25),
    "before_text": text([" France", "."], edited=False), "after_text": text([" Japan", "\n<i>"], edited=True),
    "curve": {
        "remove": "France", "add": "Japan", "strengths": STRENGTHS,
        "p": {"France": [0.5] * 17, "Japan": [min(1.0, 10 * s) for s in STRENGTHS]},
        "p_unedited": {"France": 0.5, "Japan": 0.0001}, "says": [False] * 8 + [True] * 9, "first": STRENGTHS[8],
        "kl": [20 * s for s in STRENGTHS],
    },
}  # fmt: skip


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
