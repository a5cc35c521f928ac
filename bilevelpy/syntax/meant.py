"""Keywords that are spelt in other ways, or nearly."""

from __future__ import annotations

import difflib

from lark.lexer import Token

from bilevelpy.syntax import tokens as table


def meant_keyword(
    tokens: list[Token], k: int, keywords: dict[str, str], cutoff: float
) -> tuple[str | None, int]:
    """The keyword that word ``k`` was meant to be, and how many tokens its spelling took."""
    word = str(tokens[k]).lower()
    following = tokens[k + 1].type if k + 1 < len(tokens) else ""
    heading = word in ("st", "constraints", "subject_to") and "subject to" in keywords
    if heading and following == "COLON":
        return "subject to", 2
    if following in ("COLON", "REL", "CMP"):
        return None, 1
    if "subject to" in keywords:
        after = "".join(str(t).lower() for t in tokens[k : k + 4])
        for spelling, length in (("s.t.", 4), ("s.t", 3), ("st.", 2), ("suchthat", 2)):
            if after.startswith(spelling):
                return "subject to", length
    meant = table.FOREIGN_WORDS.get(word)
    if meant in ("minimize", "maximize") and following in ("LPAR", "LSQB") and cutoff > 0.8:
        return None, 1
    if meant in keywords:
        return meant, 1
    if following not in ("NAME", "STRING", "LBRACE", "NUMBER", "LPAR", "SUBJECT_TO"):
        return None, 1
    close = difflib.get_close_matches(word, list(keywords), 1, cutoff)
    return (close[0] if close else None), 1
