"""Which jobs and backfills have finished, for asset watchers: list scans, cursors, filters, subscribers."""
