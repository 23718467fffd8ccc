"""What ``make`` runs for people who work on the project, or try it."""
