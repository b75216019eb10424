"""Doorbells: they shorten a wait and carry nothing. The truth is the store."""
