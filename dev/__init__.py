"""Programs that ``make`` runs for developers of the project, and for people who try it."""
