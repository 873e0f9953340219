"""Sets go to a Hub and come back: a small server over a folder stands for it, and the client is the real one."""

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants

import lrc_tl as lrc
from lrc_tl.directions.hub import FILE_NAME, model_card

TOKEN = "hf_a_token_for_tests_only"


def concepts(relation="city|country", **settings):
    generator = torch.Generator().manual_seed(0)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(12, generator=generator),
                relation=relation,
                object_name=name,
                hook_name="blocks.1.hook_resid_post",
            )
            for name in ("Côte d'Ivoire", "日本")
        },
        settings={"rank": 4, "seed": 0, **settings},
    )


class Handler(BaseHTTPRequestHandler):
    """The few addresses of the Hub that pushing and fetching use."""

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, code):
        self.answer(status, {"error": code}, **{"X-Error-Code": code, "X-Error-Message": code})

    def do_POST(self):
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("?")[0].strip("/").split("/")
        hub.seen.append((self.command, self.path))
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if repo in hub.repos:
                return self.answer(409, {"url": f"{hub.url}/{repo}", "error": "You already created this repo"})
            hub.repos[repo] = {"private": wanted.get("visibility", wanted.get("private")), "head": None}
            return self.answer(200, {"url": f"{hub.url}/{repo}"})
        repo, action, revision = "/".join(parts[2:4]), parts[4], parts[5]
        if repo not in hub.repos:
            return self.refuse(404, "RepoNotFound")
        if revision != "main":
            return self.refuse(404, "RevisionNotFound")
        if action == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                200,
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]},
            )
        assert action == "commit", self.path
        lines = [json.loads(line) for line in body.decode().splitlines()]
        commit = hashlib.sha1(body).hexdigest()
        folder = hub.folder / repo / commit
        folder.mkdir(parents=True)
        for line in lines:
            if line["key"] == "file":
                (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        hub.repos[repo]["head"] = commit
        hub.repos[repo]["message"] = lines[0]["value"]["summary"]
        return self.answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def do_GET(self):
        hub = self.server
        parts = self.path.split("?")[0].strip("/").split("/")
        hub.seen.append((self.command, self.path))
        repo = "/".join(parts[:2])
        if repo not in hub.repos:
            return self.refuse(401, "RepoNotFound")
        assert parts[2] == "resolve", self.path
        commit = hub.repos[repo]["head"] if parts[3] == "main" else parts[3]
        if not (hub.folder / repo / str(commit)).is_dir():
            return self.refuse(404, "RevisionNotFound")
        path = hub.folder / repo / commit / parts[4]
        if not path.is_file():
            return self.answer(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = path.read_bytes()
        return self.answer(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', **{"X-Repo-Commit": commit})

    do_HEAD = do_GET


def use(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.repos, server.seen = tmp_path / "hub", {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_set_that_is_pushed_comes_back_bit_for_bit(hub):
    made = concepts()
    commit = made.push_to_hub("me/capitals", private=True, token=TOKEN, message="First")
    assert hub.repos["me/capitals"]["private"] in ("private", True)
    assert hub.repos["me/capitals"]["message"] == "First"
    stored = hub.folder / "me/capitals" / commit
    assert sorted(path.name for path in stored.iterdir()) == ["README.md", FILE_NAME]
    back = lrc.ConceptSet.from_hub("me/capitals", token=TOKEN)
    assert list(back) == list(made)
    assert torch.equal(back.vectors, made.vectors)
    assert back.settings == made.settings
    assert TOKEN not in (stored / "README.md").read_text(encoding="utf-8")


def test_a_revision_gives_the_set_of_its_time(hub):
    first = concepts().push_to_hub("me/capitals", token=TOKEN)
    second = concepts(rank=9).push_to_hub("me/capitals", token=TOKEN)
    assert first != second
    assert hub.repos["me/capitals"]["private"] in ("public", False)
    assert lrc.ConceptSet.from_hub("me/capitals", revision=first).settings["rank"] == 4
    assert lrc.ConceptSet.from_hub("me/capitals").settings["rank"] == 9


def test_what_was_fetched_once_is_there_without_a_network(hub, monkeypatch):
    made = concepts()
    made.push_to_hub("me/capitals", token=TOKEN)
    lrc.ConceptSet.from_hub("me/capitals")
    asked = len(hub.seen)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(lrc.ConceptSet.from_hub("me/capitals").vectors, made.vectors)
    assert len(hub.seen) == asked


def test_a_folder_is_read_as_a_repository_is(tmp_path):
    made = concepts()
    with pytest.raises(lrc.errors.HubError, match=rf"holds no {FILE_NAME}; ConceptSet\.load reads"):
        lrc.ConceptSet.from_hub(str(tmp_path))
    made.save(tmp_path / FILE_NAME)
    assert torch.equal(lrc.ConceptSet.from_hub(str(tmp_path)).vectors, made.vectors)


def test_the_model_is_checked_on_the_way_in(hub, word_model):
    direction = lrc.ConceptDirection.from_unscaled(
        torch.ones(8), relation="r", object_name="x", hook_name="blocks.1.hook_resid_post"
    )
    lrc.ConceptSet({"x": direction}).push_to_hub("me/narrow", token=TOKEN)
    with pytest.raises(ValueError, match="has width 8, but the model's d_model is 12"):
        lrc.ConceptSet.from_hub("me/narrow", model=word_model)


def test_the_card_says_what_the_header_says(hub, word_model):
    fingerprint = lrc.models.ModelFingerprint.of(word_model)
    direction = lrc.ConceptDirection.from_unscaled(
        torch.ones(12), relation="a|b\nc", object_name="x", hook_name="blocks.1.hook_resid_post", method="svm",
        fingerprint=fingerprint,
    )  # fmt: skip
    commit = lrc.ConceptSet({"x": direction}, settings={"seed": 3}).push_to_hub("me/card", token=TOKEN)
    card = (hub.folder / "me/card" / commit / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: lrc_tl\n")
    for row in (
        "| Relation | a\\|b c |",
        "| Concepts | 1: x |",
        "| Method | svm |",
        "| Hook point | `blocks.1.hook_resid_post` (layer 1) |",
        f"| Model | {fingerprint.name} |",
        f"| TransformerLens | {fingerprint.transformer_lens} |",
        "| Calibrated | no |",
    ):
        assert row in card.splitlines()
    assert json.loads(card.split("```json\n")[1].split("```")[0]) == {"seed": 3}
    assert 'from_hub("me/card", model=model)' in card


def test_the_card_says_what_a_set_writes_with_where_that_is_another_vector(hub):
    def direction(name, rule):
        return lrc.ConceptDirection.from_unscaled(
            torch.ones(12), relation="r", object_name=name, hook_name="blocks.1.hook_resid_post",
            write_vector=None if rule == "vector" else torch.arange(12.0), write_rule=rule,
        )  # fmt: skip

    made = lrc.ConceptSet({name: direction(name, name) for name in ("covariance", "vector", "given")})
    commit = made.push_to_hub("me/pairs", token=TOKEN)
    card = (hub.folder / "me/pairs" / commit / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in card.splitlines() if line.startswith("| Writes with"))
    assert row == (
        "| Writes with | the dual of the vector that reads, under the subjects' covariance, "
        "the vector that reads, another vector than reads |"
    )
    assert torch.equal(lrc.ConceptSet.from_hub("me/pairs").write_vectors, made.write_vectors)
    commit = concepts().push_to_hub("me/plain", token=TOKEN)
    assert "Writes with" not in (hub.folder / "me/plain" / commit / "README.md").read_text(encoding="utf-8")


def test_a_card_of_many_concepts_stays_short():
    header = {
        "relation": "", "hook_name": "blocks.1.hook_resid_post", "layer": 1, "fingerprint": None, "settings": {},
        "objects": [{"name": f"c{number}", "method": "lrc"} for number in range(60)],
    }  # fmt: skip
    card = model_card(header, repo_id="me/x")
    assert "c49 and 10 more |" in card
    assert "| Model | not recorded |" in card


def test_each_failure_is_one_clear_line(hub, monkeypatch):
    made = concepts()
    cases = [
        (
            lrc.errors.HubError,
            "'me/none': there is no such repository",
            lambda: lrc.ConceptSet.from_hub("me/none"),
        ),
        (
            lrc.errors.HubError,
            "'me/capitals' at revision 'v9': the repository has no such revision",
            lambda: lrc.ConceptSet.from_hub("me/capitals", revision="v9"),
        ),
        (
            lrc.errors.HubError,
            f"'me/other': the repository has no {FILE_NAME}, so it holds no concept set",
            lambda: lrc.ConceptSet.from_hub("me/other"),
        ),
        (
            lrc.errors.HubError,
            "at revision 'v9': the repository has no such revision",
            lambda: made.push_to_hub("me/capitals", token=TOKEN, revision="v9"),
        ),
        (
            lrc.errors.HubError,
            "'me/capitals': the Hub answered 401; is the token one that may write",
            lambda: made.push_to_hub("me/capitals", token="hf_wrong"),
        ),
        (ValueError, "'a/b/c' is no repository id", lambda: lrc.ConceptSet.from_hub("a/b/c")),
        (ValueError, "'-x y' is no repository id", lambda: made.push_to_hub("-x y", token=TOKEN)),
        (lrc.errors.ArtifactError, "cannot be written as JSON", lambda: concepts(x={1}).push_to_hub("me/x")),
    ]
    commit = made.push_to_hub("me/capitals", token=TOKEN)
    other = hub.folder / "me/other" / commit
    other.mkdir(parents=True)
    hub.repos["me/other"] = {"head": commit}
    for kind, message, act in cases:
        with pytest.raises(kind, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(lrc.errors.HubError, match="not in the cache, and the Hub cannot be reached"):
        lrc.ConceptSet.from_hub("me/capitals")
    with pytest.raises(lrc.errors.HubError, match="switched off by HF_HUB_OFFLINE"):
        made.push_to_hub("me/capitals", token=TOKEN)


def test_a_hub_that_does_not_answer_is_said(hub, monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its retries
    with pytest.raises(lrc.errors.HubError, match="'me/x': not in the cache, and the Hub cannot be reached"):
        lrc.ConceptSet.from_hub("me/x")
    with pytest.raises(lrc.errors.HubError, match="'me/x': the Hub cannot be reached: "):
        concepts().push_to_hub("me/x", token=TOKEN)


def test_a_file_that_was_changed_on_the_way_is_refused(hub):
    commit = concepts().push_to_hub("me/capitals", token=TOKEN)
    path = hub.folder / "me/capitals" / commit / FILE_NAME
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(lrc.errors.ArtifactError, match="does not match its SHA-256"):
        lrc.ConceptSet.from_hub("me/capitals")
