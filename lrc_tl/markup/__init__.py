"""Text for eyes: HTML for notebooks, what a terminal may show, progress, warnings at the user's own line."""
