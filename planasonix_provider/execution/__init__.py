"""One try of a task: submission, waiting, cancellation, results. Imports no operator and no sensor."""
