"""What the simulator simulates: connections, jobs, backfills and their state. Contains no HTTP."""
