"""Writing a relation as a file. Needs no torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lrc_tl.storage.whole_file import whole_file

if TYPE_CHECKING:
    from lrc_tl.relations.relation import Relation


def save_relation(self: "Relation", path: str | Path) -> None:
    """Write the relation as a JSON file in the LRE dataset's format, which `load_relation` reads.

    It holds name, kind, templates, facts and aliases. What `split` remembers (`shot_facts`, and objects of
    the other side) is no part of that format. The file appears whole or not at all.

    Raises:
        ArtifactError: the folder is missing.
    """
    data = {
        "name": self.name,
        "kind": self.kind,
        "prompt_templates": list(self.templates),
        "prompt_templates_zs": list(self.zero_shot_templates),
        "samples": [{"subject": fact.subject, "object": fact.object} for fact in self.facts],
        **({"aliases": {name: list(names) for name, names in self.aliases}} if self.aliases else {}),
    }
    with whole_file(Path(path)) as partial:
        partial.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
