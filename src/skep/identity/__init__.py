"""Who is this: from a platform's account to one person, whatever platform they write from."""
