"""SQLite through apsw: one writer thread with group commit, and the transactions of each database."""
