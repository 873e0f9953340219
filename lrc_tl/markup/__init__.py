"""Text for eyes: what a terminal may show, progress, and warnings at the user's own line."""
