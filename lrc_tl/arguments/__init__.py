"""What is given: types, numbers and lists, checked before anything runs."""
