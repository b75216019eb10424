"""The daemon: who is this person, which agent answers, and the one broker of messages."""
