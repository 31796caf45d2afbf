"""One file a subject; each check is a function from an examination to its findings."""
