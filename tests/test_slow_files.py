"""The list of slow files names files that there are."""

from pathlib import Path

from slow_files import SLOW_FILES


def test_every_slow_file_is_a_test_file_and_listed_once():
    folder = Path(__file__).parent
    assert [name for name in SLOW_FILES if not (folder / name).is_file()] == []
    assert list(SLOW_FILES) == sorted(set(SLOW_FILES))


def test_tests_of_slow_files_are_marked_and_no_others(request):
    items = request.session.items
    names = {item.path.relative_to(Path(__file__).parent).as_posix(): item for item in items}
    for name, item in names.items():
        assert (item.get_closest_marker("slow") is not None) == (name in SLOW_FILES)
