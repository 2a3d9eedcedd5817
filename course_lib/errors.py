"""The error a user can mend: one line that says what is wrong and what to do."""

from __future__ import annotations


class CourseError(Exception):
    """A problem that the user can mend; the command line prints it as ``error: <message>`` and exits with 2."""
