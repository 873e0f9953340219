"""Checks of arguments before anything runs: types, numbers, lists, mistyped names."""
