"""Files that appear whole or not at all, and are checked when they are read."""
