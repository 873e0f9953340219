"""How much memory the host can still give: what Linux says, within the limits of the process's control groups."""

from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def host_free_bytes(*, proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """Bytes that can be had without swapping; None where the system does not say.

    `MemAvailable`, or what a control group (a container, a job of Slurm) has left where that is less. Files that a
    group has read and not used lately count as free.
    """
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    named = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    if "MemAvailable" not in named:
        return None
    free = [int(named["MemAvailable"][0]) * 1024]
    for group in _groups_of(proc, groups):
        most, used = _number(group / "memory.max"), _number(group / "memory.current")
        if most is not None and used is not None:
            free.append(max(0, most - used + _idle_files(group)))
    return min(free)


def _groups_of(proc: Path, groups: Path) -> list[Path]:
    """The process's control group (version 2) and those around it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    place = groups / own
    return [place, *(parent for parent in place.parents if parent.is_relative_to(groups))]


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or it says that there is no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _idle_files(group: Path) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
