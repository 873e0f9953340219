"""Names from elsewhere, made safe for a figure or a page."""

import html as markup

from lrc_tl.markup.printable import printable


def shown(text: str, *, html: bool = True, quoted: bool = False) -> str:
    """The text in one line, without control characters; with `html`, HTML reads it as text."""
    plain = " ".join(printable(text).split())
    return markup.escape(plain, quote=quoted) if html else plain
