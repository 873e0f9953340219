"""Concept sets on the Hugging Face Hub: one file, a generated model card, and errors in one line."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from lrc_tl.directions.writing import OWN_VECTOR
from lrc_tl.errors import HubError
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.storage.artifacts import read_artifact

FILE_NAME = "concepts.safetensors"
"""The file of a repository that holds the set."""
_CARD = "README.md"
_MAX_NAMES = 50
_WRITES_WITH = {
    OWN_VECTOR: "the vector that reads",
    "covariance": "the dual of the vector that reads, under the subjects' covariance",
    "given": "another vector than reads",
}


class OnHub(ABC):
    """`push_to_hub` and `from_hub` for a class with `save` and `load`."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write a file."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path, *, model: HookedModel | None = None) -> Self:
        """Read what `save` wrote."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        message: str = "Upload concepts",
    ) -> str:
        """Put the file that `save` writes, and a generated model card, into a model repository of the Hub.

        The repository is created if it does not exist, `private` or not; then the two files are uploaded as one
        commit to the branch `revision`. Returns the commit's SHA-1, which `from_hub` takes as `revision`.

        Raises:
            ArtifactError: `settings` holds something that is not JSON.
            HubError: no such revision, no token or not the right one, or no network.
            ValueError: `repo_id` is not a repository id.
        """
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.save(folder / FILE_NAME)
            _, header = read_artifact(folder / FILE_NAME, kind="concepts")
            (folder / _CARD).write_text(model_card(header, repo_id=repo_id), encoding="utf-8")
            with _one_line(repo_id, revision):
                from huggingface_hub import HfApi

                api = HfApi(token=token)
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision
                )
                return str(commit.oid)

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        *,
        revision: str | None = None,
        model: HookedModel | None = None,
        token: str | None = None,
    ) -> Self:
        """The set that `push_to_hub` put into a repository, or that stands in a folder; checked as by `load`.

        If there is a folder of that name, `repo_id` means the folder. `revision` is a branch, a tag or a commit,
        and only a commit is sure to stay the same. What was fetched before comes from the cache without a network.

        Raises:
            ArtifactError: the file is damaged, changed, or no concept set of a known version.
            FingerprintMismatch: the set was made on another model.
            HubError: no such repository, revision or file, or no network and nothing in the cache.
            ValueError: `repo_id` is not a repository id.
        """
        return cls.load(_fetched(repo_id, revision, token), model=model)


def _fetched(repo_id: str, revision: str | None, token: str | None) -> Path:
    if Path(repo_id).is_dir():
        path = Path(repo_id) / FILE_NAME
        if not path.is_file():
            raise HubError(f"the folder {repo_id} holds no {FILE_NAME}; ConceptSet.load reads a file by its name")
        return path
    with _one_line(repo_id, revision):
        from huggingface_hub import HfApi

        return Path(HfApi(token=token).hf_hub_download(repo_id, FILE_NAME, revision=revision))


def model_card(header: Mapping[str, Any], *, repo_id: str) -> str:
    """A model card with what the header of a set's file says: what it holds, and what made it."""
    names = [str(entry["name"]) for entry in header["objects"]]
    listed = ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES} more" if names[_MAX_NAMES:] else "")
    fingerprint = header["fingerprint"] or {}
    facts = {
        "Relation": header["relation"] or "not named",
        "Concepts": f"{len(names)}: {listed}",
        "Method": ", ".join(dict.fromkeys(str(entry["method"]) for entry in header["objects"])),
        "Hook point": f"`{header['hook_name']}` (layer {header['layer']})",
        "Model": fingerprint.get("name", "not recorded"),
        "Calibrated": "yes" if header.get("calibration") else "no",
    }
    rules = dict.fromkeys(entry.get("write_rule", OWN_VECTOR) for entry in header["objects"])
    if list(rules) != [OWN_VECTOR]:
        facts["Writes with"] = ", ".join(_WRITES_WITH[rule] for rule in rules)
    for label, field in (
        ("Model class", "model_class"),
        ("Weights", "processing"),
        ("d_model", "d_model"),
        ("TransformerLens", "transformer_lens"),
        ("dtype", "dtype"),
    ):
        if field in fingerprint:
            facts[label] = fingerprint[field]
    rows = "\n".join(f"| {label} | {_cell(value)} |" for label, value in facts.items())
    settings = json.dumps(header["settings"], indent=2, ensure_ascii=False, allow_nan=False)
    return f"""---
library_name: lrc_tl
tags:
- interpretability
- linear-relational-concepts
- transformer-lens
---

# Concepts of a language model: {_cell(header["relation"] or "a relation")}

Unit vectors in the residual stream, one for each concept, to probe and to steer with `lrc_tl`
(Linear Relational Concepts, arXiv:2311.08968). They mean something on the model below only; loading checks that.

| | |
|---|---|
{rows}

```python
import lrc_tl as lrc

concepts = lrc.ConceptSet.from_hub("{repo_id}", model=model)  # model = lrc.load_model(...)
```

Settings:

```json
{settings}
```
"""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


@contextmanager
def _one_line(repo_id: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    where = f"{repo_id!r}" if revision is None else f"{repo_id!r} at revision {revision!r}"
    # The error of a failed connection belongs to the HTTP library, which differs between versions of the Hub's.
    network: tuple[type[Exception], ...] = (OSError, *errors.HfHubHTTPError.__bases__)
    hub: tuple[type[Exception], ...] = (errors.HfHubHTTPError, errors.EntryNotFoundError)
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no repository id, nor a folder; give 'user/name'") from error
    except (*hub, *network) as error:
        raise HubError(f"{where}: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    """What went wrong and what to do, by the most special of the Hub's errors that this is."""
    from huggingface_hub import errors

    for kind, words in (
        (errors.OfflineModeIsEnabled, "the Hub is switched off by HF_HUB_OFFLINE; unset it to reach it"),
        (
            errors.LocalEntryNotFoundError,
            "not in the cache, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is set)",
        ),
        (errors.LocalTokenNotFoundError, "no token; give token=, set HF_TOKEN, or log in with `hf auth login`"),
        (errors.RevisionNotFoundError, "the repository has no such revision; give a branch, tag or commit"),
        (
            errors.RepositoryNotFoundError,
            "there is no such repository, or this token may not see it; check the name and token=",
        ),
        (errors.EntryNotFoundError, f"the repository has no {FILE_NAME}, so it holds no concept set"),
    ):
        if isinstance(error, kind):
            return words
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "no status")
        return f"the Hub answered {status}{'; is the token one that may write?' if status in (401, 403) else ''}"
    return f"the Hub cannot be reached: {' '.join(str(error).split())}"
