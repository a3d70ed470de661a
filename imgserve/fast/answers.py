"""Remembered answers, replayed by the fast path; compiled unless IMGSERVE_PURE=1."""

from typing import TYPE_CHECKING

from imgserve.fast import IS_PURE

if TYPE_CHECKING or IS_PURE:
    from imgserve.fast._answers_py import EVERY_ACCEPT, MAX_CLASSES, Answer, Answers
else:
    from imgserve.fast._answers import EVERY_ACCEPT, MAX_CLASSES, Answer, Answers

__all__ = ["EVERY_ACCEPT", "MAX_CLASSES", "Answer", "Answers"]
