"""How the documentation is built: `make docs` makes `build/docs` of this folder, without network."""

import shutil
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from command_pages import command_page  # noqa: E402
from reference_pages import reference_pages  # noqa: E402
from rendered_notebooks import rendered_notebooks  # noqa: E402
from schema_pages import schema_pages  # noqa: E402

project = "lrc_tl"
author = "The lrc_tl developers"
copyright = "2026, The lrc_tl developers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "native_math"]
exclude_patterns = []
html_theme = "furo"
html_title = f"lrc_tl {release}"
html_static_path = ["_static"]
html_css_files = ["lrc_tl.css"]
html_math_renderer = "native"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Notebooks are executed by `make notebooks`; here the copies that it left are shown.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would be loaded from another host
nb_render_markdown_format = "myst"  # with tables

# A single backtick in a docstring is a name where there is one of ours, else code.
default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
maximum_signature_line_length = 80
add_module_names = False

nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # the default role: not every code span in a docstring is a name
    (
        "py:.*",
        r"(abc|torch|numpy|pandas|jaxtyping|collections|pathlib|concurrent|contextlib|plotly|matplotlib|types|random)\..*",
    ),
    (
        "py:class",
        r"Tensor|Explorer|.*JsonForm.*|lrc_tl\..*\.(_\w+|Converted|Holds\w+|HasObject|SupportsHookNames)",
    ),
]


def write_pages(pages: dict[str, str]) -> None:
    """Write pages that are not there as they are; the others keep their time, so that Sphinx leaves them alone."""
    for name, text in pages.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


shutil.rmtree(HERE / "generated", ignore_errors=True)
write_pages(reference_pages())
write_pages({"generated/commands.md": command_page()} | schema_pages())
write_pages(rendered_notebooks(ROOT / "notebooks", ROOT / "build" / "notebooks"))
