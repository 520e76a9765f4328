"""Keys, sealing and rights: pure, no SQL and no files."""
