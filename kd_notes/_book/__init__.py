"""Helpers of the book's chapters: no part of the library's interface.

They are installed with the library, so that a downloaded chapter finds them, and may
change without notice.
"""
