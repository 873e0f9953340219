"""Pictures of the explorer in JupyterLab, with packaged Gemma: `python tests/views/explorer_pictures.py FOLDER`.

Each page of it, light at 1280 and dark at 390 pixels; `explorer.png` is the one in the documentation.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "views")]

from chromium import chromium  # noqa: E402
from jupyter_lab import ROOT, done, notebook, theme  # noqa: E402

CELLS = [
    f"""
import sys
sys.path[:0] = [{str(TESTS.parent)!r}]
import lrc_tl as lrc
model = lrc.load_model("packaged:gemma-3-270m")
train, test = lrc.load_relation("city_in_country").split(seed=0)
known = lrc.filter_known(model, train.prompts(shots=4, seed=0), progress=False)
prompts = known.sample(8, seed=0)
lre = lrc.LinearRelationalEmbedding.fit(model, prompts, subject_layer=7, object_layer=12, progress=False)
concepts = lre.concepts(model, known.prompts, rank=128)
""",
    """
text = "The city of Bordeaux is located in the country of"
lrc.explore(model, concepts, text=text, subject="Bordeaux", remove="France", add="Japan")
""",
]


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with notebook(chromium(), CELLS) as page:
        page.until(f"document.querySelector('{ROOT}')", seconds=400)
        done(page, seconds=120)
        page.picture(folder / "explorer.png", ROOT)
        page.size(390, 1000)
        theme(page, "Dark")
        page.picture(folder / "explorer_390.png", ROOT)
        page.js(f"document.querySelectorAll('{ROOT} [role=tab]')[1].click()")
        page.until(f"document.querySelector('{ROOT} svg')", seconds=60)
        done(page, seconds=240)
        page.picture(folder / "curve_390.png", ROOT)
        page.size(1280, 1100)
        theme(page, "Light")
        page.picture(folder / "curve.png", ROOT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
