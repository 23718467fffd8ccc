"""The simulated connections, jobs and backfills, and their state. Contains no HTTP."""
