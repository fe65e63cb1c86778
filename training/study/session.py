"""One rater at work: what the page shows, and answers that are on the disk before they count."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...runtime.support.errors import OutputError
from ...runtime.support.printable import printable
from .answers import Answer, Sheet, write_sheet
from .study_folder import SCALE, Study, clip_file

MOST_COMMENT = 1000
"""Characters of a comment."""
_MOST_SECONDS = 1e6


@dataclass(frozen=True)
class Posted:
    """An answer as the page sends it; `position` from 1."""

    position: int
    rating: int | None
    real: bool | None
    comment: str
    seconds: float


class Session:
    """The study and one rater's answers; each change is on the disk before it counts."""

    def __init__(self, folder: Path, study: Study, sheet: Sheet) -> None:
        self.study, self.sheet = study, sheet
        self._folder = folder
        self._lock = threading.Lock()
        self.closed = False

    def state(self) -> dict[str, Any]:
        """What the page shows; nothing in it tells clips apart."""
        keys = ("rating", "real", "comment", "seconds")
        return {
            "question": self.study.question,
            "real_or_fake": self.study.real_or_fake,
            "rater": self.sheet.rater,
            "most_comment": MOST_COMMENT,
            "answers": [{k: asdict(answer)[k] for k in keys} for answer in self.sheet.answers],
        }

    def clip(self, position: int) -> bytes:
        """The file of the clip at a position, from 1. Raises IndexError, OSError."""
        clips = self.study.orders[self.sheet.order - 1]
        if not 1 <= position <= len(clips):
            raise IndexError
        return clip_file(self._folder, clips[position - 1]).read_bytes()

    def close(self) -> None:
        """Save no more; an answer that is being written is finished first."""
        with self._lock:
            self.closed = True

    def save(self, posted: Posted) -> None:
        """Take an answer. Raises ValueError if it cannot be one, OutputError if it cannot be
        written."""
        comment = printable(posted.comment.replace("\r\n", "\n")).strip()
        wrong = (
            not 1 <= posted.position <= len(self.sheet.answers)
            or posted.rating not in (None, *SCALE)
            or (posted.real is not None and not self.study.real_or_fake)
            or len(posted.comment) > MOST_COMMENT
            or not 0 <= posted.seconds <= _MOST_SECONDS
        )
        if wrong:
            raise ValueError("not an answer to this study")
        with self._lock:
            if self.closed:
                raise OutputError("the server is being stopped")
            answers = list(self.sheet.answers)
            before = answers[posted.position - 1]
            said = posted.rating, posted.real, comment
            when = before.answered
            if said != (before.rating, before.real, before.comment):
                when = datetime.now(UTC).isoformat(timespec="seconds")
            answers[posted.position - 1] = Answer(*said, posted.seconds, when)
            sheet = replace(self.sheet, answers=tuple(answers))
            write_sheet(self._folder, self.study, sheet)
            self.sheet = sheet
