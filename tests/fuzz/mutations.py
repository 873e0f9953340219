"""Random damage to files: to their bytes, to JSON as text, and to JSON as values."""

import copy
import json

ODD = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320, "", " ", "x",
    "x" * 5000, "../../etc/passwd", "/etc/passwd", "~/x", "C:\\x", "file:///etc/passwd", "{}",
    "{0.__class__}", "%s%n", "\0", "\x1b[2J", "\ud800", "\N{ROCKET}", "__import__('os').system('touch PWNED')",
    "$(touch PWNED)", "!!python/object:os.system", "NaN", "1e999", [], {}, [[]], [None], [0], ["x"], {"x": 1},
    {"": {}}, {"__class__": "x"}, [[[[[[]]]]]],
)  # fmt: skip
_TOKENS = (
    b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"NaN", b"Infinity", b"-1", b"1e999",
    b"9" * 400, b"null", b"\\ud800", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[" * 2000, b"__metadata__",
    b"..\\/..\\/x",
)  # fmt: skip


def damaged(data, draw):
    """The bytes with one to three kinds of damage."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice((_flipped, _flipped, _cut, _shortened, _doubled, _inserted, _overwritten))(data, draw)
    return data


def _place(data, draw):
    # The beginning holds lengths and kinds, so it is hit more often than its share.
    return draw.randrange(min(len(data), 64)) if draw.random() < 0.3 else draw.randrange(len(data))


def _flipped(data, draw):
    changed = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8))):
        changed[_place(changed, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data, draw):
    start, stop = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[stop:]


def _shortened(data, draw):
    return data[: draw.randrange(len(data) + 1)]


def _doubled(data, draw):
    start, stop = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start : start + min(stop - start, 4096)] + data[stop:]


def _inserted(data, draw):
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(_TOKENS) + data[at:]


def _overwritten(data, draw):
    """Eight bytes as sizes are written: none, all, and about as many as there are."""
    at = _place(data or b"\0", draw)
    number = draw.choice((0, 1, 2**64 - 1, 2**63, 2**32, 2**31, len(data), len(data) * 8, draw.getrandbits(64)))
    return data[:at] + number.to_bytes(8, "little") + data[at + 8 :]


def places(value, place=()):
    """Every place in a JSON value, from the top on."""
    yield place
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*place, key))


def edited(document, draw):
    """A JSON value with one to three places changed, taken out, added or exchanged."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        all_places = list(places(document))[1:]
        if not all_places:
            return document
        *path, last = draw.choice(all_places)
        parent = document
        for key in path:
            parent = parent[key]
        match draw.choice(("replace", "replace", "replace", "remove", "add", "move", "rename")):
            case "replace":
                parent[last] = copy.deepcopy(draw.choice(ODD))
            case "remove":
                del parent[last]
            case "move":
                other = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
                parent[last] = copy.deepcopy(parent[other])
            case "rename" if isinstance(parent, dict):
                parent[str(draw.choice(ODD))[:50]] = parent.pop(last)
            case _ if isinstance(parent, dict):
                parent["another"] = copy.deepcopy(draw.choice(ODD))
            case _:
                parent.insert(last, copy.deepcopy(parent[last]))
    return document


def as_json(document):
    """As someone writes it who escapes what no UTF-8 can hold."""
    return json.dumps(document, ensure_ascii=True).encode()
