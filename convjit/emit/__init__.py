"""Kernel and schedule -> text: epilogues as statements of a language, templates as its files."""
