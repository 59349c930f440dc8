"""Recommendations for all users of a file: the night job. See :mod:`genrec.batch.job`."""
