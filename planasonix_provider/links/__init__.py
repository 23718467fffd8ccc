"""The buttons that lead from a task to Planasonix."""
