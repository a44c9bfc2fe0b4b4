"""Nouns of the OCI specifications and the pure rules over them: no I/O at all."""
