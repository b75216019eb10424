"""The web chat: a platform whose server is ours."""
