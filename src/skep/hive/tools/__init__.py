"""The tools of the hive: what an agent may do, by socket identity."""
