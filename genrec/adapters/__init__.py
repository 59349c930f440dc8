"""Bridges from the trie to other libraries' own generation loops."""
