"""The command line: one module per noun; it composes and prints."""
