"""The simulator's pages for people: what it does, live, and forms that steer it."""
