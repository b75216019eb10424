"""Model endpoints: where they are, which key they get, and whether they can do what an agent needs."""
