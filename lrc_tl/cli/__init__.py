"""The command line `lrc-tl`; no logic of its own."""
