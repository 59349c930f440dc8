"""What ``genrec bench`` measures, and what every benchmark shares.

Beside the measuring itself nothing is here: what is measured is the search, the kernels and the decoders as
users run them, wrapped or called from outside, never a copy of them.
"""
