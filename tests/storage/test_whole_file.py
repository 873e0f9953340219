"""Writers of files: links are followed, what is no file is refused, and a file appears whole or not at all."""

import os
import socket
import stat

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.storage.artifacts import write_artifact
from lrc_tl.storage.json_results import check_target, write_result
from lrc_tl.storage.whole_file import whole_file


def an_artifact(path):
    write_artifact(path, kind="test", tensors={"a": torch.ones(2)}, header={})


def a_result(path):
    write_result(path, kind="test", results={}, settings={}, model=None, seconds=0.0)


def a_control_vector(path):
    pytest.importorskip("gguf")
    lrc.write_control_vector(path, {1: torch.ones(4)}, model_hint="gemma3")


def a_picture(path):
    pytest.importorskip("matplotlib")
    from lrc_tl.views.figure import Axis, Figure, Panel

    Figure(title="", panels=(Panel(x=Axis(label=""), y=Axis(label="")),)).save(path, kind="png")


writers = pytest.mark.parametrize("write", [an_artifact, a_result, a_control_vector, a_picture])


@writers
def test_writing_onto_a_link_writes_the_file_that_it_leads_to(tmp_path, write):
    (tmp_path / "far").mkdir()
    target, link, second = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "second"
    link.symlink_to("far/target")
    second.symlink_to(link)
    for existing in (False, True):  # a link to nothing yet makes the file
        if existing:
            target.write_text("old")
        write(second)
        assert link.is_symlink()
        assert second.is_symlink()
        assert target.stat().st_size > 20
        assert os.listdir(tmp_path / "far") == ["target"]
    assert sorted(os.listdir(tmp_path)) == ["far", "link", "second"]


@writers
def test_writing_onto_what_is_no_file_is_refused_and_leaves_it(tmp_path, write):
    pipe, listening, loop = tmp_path / "pipe", tmp_path / "socket", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    (tmp_path / "to_pipe").symlink_to(pipe)
    (tmp_path / "to_device").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(listening))
    before = sorted(os.listdir(tmp_path))
    for name, kind in (
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("to_pipe", "a named pipe"),
        ("to_device", "a device"),
        ("loop", "a link that leads back to itself"),
    ):
        with pytest.raises(lrc.errors.ArtifactError, match=f"{name}.* is {kind}; give the name of a file"):
            write(tmp_path / name)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert sorted(os.listdir(tmp_path)) == before


@writers
def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path, write):
    for name in ("x" * 255, "語" * 85):
        write(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "a"
    an_artifact(path)
    path.chmod(0o640)
    an_artifact(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_block_that_fails_leaves_the_old_file_behind_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")

    def write():
        with whole_file(tmp_path / "link") as partial:
            partial.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert (tmp_path / "link").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_target_that_is_no_file_is_refused_before_a_run(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(lrc.errors.ArtifactError, match="is a named pipe; give the name of a file"):
        check_target(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "none" / "r.json")
    check_target(tmp_path / "link")  # makes nothing: the folder that it leads to is made when it is written
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("a\0b", r"'a\\x00b' holds a null character"), ("é" * 130, "takes 260 bytes, and file systems allow 255")],
    ids=["null", "long"],
)
def test_a_name_that_no_file_can_have_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lrc.errors.ArtifactError, match=message), whole_file(name):
        raise AssertionError("the block is not entered")
    assert list(tmp_path.iterdir()) == []
