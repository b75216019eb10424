"""Secrets: read by name from a store, without anybody at the keyboard, and rendered for a program to read."""
