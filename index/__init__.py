"""Offline half of genrec: a catalog file becomes token paths, a frozen trie and memory-mapped arrays.

This package knows items and token paths. It knows no model and never imports torch.
"""
