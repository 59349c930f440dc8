"""Training: whole user sequences in, weights out. Knows no HTTP, no catalogs; histories come as arrays."""
