"""HTTP half of genrec. It knows requests and responses, never tensors."""
