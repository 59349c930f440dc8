"""Models behind one contract: prefill a prompt, extend prefixes, read logits of the edges asked for."""
