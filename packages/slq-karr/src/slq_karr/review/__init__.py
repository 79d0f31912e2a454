"""Reviewing a KARR set on a local page: candidates and decisions in files, a small server, one page."""
