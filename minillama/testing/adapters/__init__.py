"""Adapters of our own, which are examples too: a module with functions by the names of docs/testing.md."""
