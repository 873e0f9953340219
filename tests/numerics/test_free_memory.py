"""Free memory of the host: what Linux says, and what control groups leave of it."""

import torch

from lrc_tl.numerics import product_rate
from lrc_tl.numerics.free_memory import host_free_bytes


def written(place, files):
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


def free(place):
    return host_free_bytes(proc=place / "proc", groups=place / "groups")


def test_it_is_what_linux_calls_available(tmp_path):
    written(tmp_path, {"proc/meminfo": "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:   5000 kB\n"})
    assert free(tmp_path) == 5000 * 1024


def test_a_control_group_or_one_around_it_may_leave_less(tmp_path):
    written(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable:   5000 kB\n",
            "proc/self/cgroup": "0::/job/step\n",
            "groups/job/step/memory.max": "max\n",
            "groups/job/step/memory.current": "1000\n",
            "groups/job/memory.max": "4000000\n",
            "groups/job/memory.current": "1000000\n",
        },
    )
    assert free(tmp_path) == 3_000_000
    written(tmp_path, {"groups/job/memory.stat": "anon 5\ninactive_file 200000\nslab 7\n"})
    assert free(tmp_path) == 3_200_000
    written(tmp_path, {"groups/job/memory.max": "500\n", "groups/job/memory.stat": "anon 5\n"})
    assert free(tmp_path) == 0


def test_other_systems_and_groups_of_the_first_version_say_nothing(tmp_path):
    assert free(tmp_path) is None
    written(tmp_path, {"proc/meminfo": "MemTotal:  9000 kB\n"})
    assert free(tmp_path) is None
    written(tmp_path, {"proc/meminfo": "MemAvailable: 7 kB\n", "proc/self/cgroup": "4:memory:/x\n"})
    assert free(tmp_path) == 7 * 1024


def test_this_machine_has_some():
    assert host_free_bytes() is None or host_free_bytes() > 2**20


def test_the_rate_of_products_is_above_that_of_any_clock():
    assert product_rate(64, seconds=0.01) > 1e6
    assert product_rate(8, dtype=torch.float64, seconds=0.01) > 1e5
