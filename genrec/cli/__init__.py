"""The ``genrec`` command, one verb per file."""
