"""What reading a file must not do: run anything, touch what lies outside its folder, hang, or eat memory."""

import resource
import signal
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path

SECONDS = 30
"""For one input; on a busy machine all of them take a few milliseconds."""
MEMORY_BYTES = 2 << 30
"""That reading may add to what the process has when it begins."""
_RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "ctypes.dlopen",
)
_CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
    "shutil.rmtree", "shutil.move", "socket.connect",
)  # fmt: skip


class Hang(BaseException):
    """No Exception, so that no handler of the code under test takes it."""


class Watch:
    """Sees every file that is opened and everything that is run, by Python's audit events."""

    def __init__(self, folder, *libraries):
        self.folder = Path(folder).resolve()
        paths = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, *libraries]
        self._libraries = tuple(str(Path(path).resolve()) for path in paths)
        self._system = ("/proc", "/sys", "/dev", "/usr/share", "/usr/lib", "/etc/localtime")
        self.seen = []
        self._on = False
        sys.addaudithook(self._look)  # there is no way to take one away

    def _look(self, event, arguments):
        if not self._on:
            return
        if event.startswith(_RUNS):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            name = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode(errors="replace")
            self._require_inside(event, name, libraries=not _writes(arguments[1], arguments[2]))
        elif event in _CHANGES:
            self._require_inside(event, str(arguments[0]), libraries=False)

    def _require_inside(self, event, name, *, libraries):
        self._on = False  # resolving looks at files itself
        try:
            path = str(Path(name).resolve()) if "\0" not in name else name
        finally:
            self._on = True
        allowed = (str(self.folder), *((*self._libraries, *self._system) if libraries else ("/dev/null",)))
        if not path.startswith(allowed):
            self.seen.append(f"{event} {name!r:.200}")

    @contextmanager
    def reading(self):
        """One input: with all guards up."""

        def stop(signum, frame):
            raise Hang

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        self._on = True
        try:
            yield
        finally:
            self._on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _writes(mode, flags):
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & 3)


def limit_memory():
    """From here on an allocation beyond the limit fails, so that what wants too much is seen."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, resource.RLIM_INFINITY))


def own_folder():
    """A folder in which nothing else writes, with a file that no input may reach."""
    place = Path(tempfile.mkdtemp(prefix="lrc_tl_fuzz_"))
    (place / "given").mkdir()
    (place / "outside").write_text("untouched")
    return place
