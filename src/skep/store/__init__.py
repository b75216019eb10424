"""What lies on disk: engines, migrations and named SQL. Only here is a database driver imported."""
