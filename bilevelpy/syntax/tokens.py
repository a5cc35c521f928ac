"""Keyword and operator tables, shared by the messages, the formatter and the editor grammars.

The names are those of the terminals in ``grammar/bilevel.lark``; a test keeps the two equal.
"""

from __future__ import annotations

TOP_KEYWORDS = {
    "model": "MODEL",
    "include": "INCLUDE",
    "dim": "DIM",
    "set": "SET",
    "param": "PARAM",
    "def": "DEF",
    "extern": "EXTERN",
    "report": "REPORT",
    "expect": "EXPECT",
    "upper": "UPPER",
    "lower": "LOWER",
}
LEVEL_KEYWORDS = {
    "var": "VAR",
    "let": "LET",
    "minimize": "MINIMIZE",
    "maximize": "MAXIMIZE",
    "subject to": "SUBJECT_TO",
    "assume": "ASSUME",
}
CLAUSE_KEYWORDS = {
    "optimistic": "OPTIMISTIC",
    "pessimistic": "PESSIMISTIC",
    "nash": "NASH",
    "in": "IN",
    "start": "START",
    "within": "WITHIN",
    "where": "WHERE",
    "for": "FOR",
    "if": "IF",
    "then": "THEN",
    "else": "ELSE",
    "and": "AND",
    "or": "OR",
    "not": "NOT",
    "union": "UNION",
    "inter": "INTER",
    "diff": "DIFF",
    "inf": "INF",
}
KEYWORDS = TOP_KEYWORDS | LEVEL_KEYWORDS | CLAUSE_KEYWORDS

OPERATORS = {
    "+": "PLUS",
    "-": "MINUS",
    "*": "STAR",
    "/": "SLASH",
    "@": "AT",
    "^": "CIRCUMFLEX",
    "'": "QUOTE",
    "=": "EQUAL",
    "->": "ARROW",
    "..": "RANGE",
}
COMPARISONS = {"<=": "REL", ">=": "REL", "==": "REL", "<": "CMP", ">": "CMP", "!=": "CMP"}
PUNCTUATION = {
    "(": "LPAR",
    ")": "RPAR",
    "[": "LSQB",
    "]": "RSQB",
    "{": "LBRACE",
    "}": "RBRACE",
    ",": "COMMA",
    ";": "SEMICOLON",
    ":": "COLON",
    ".": "DOT",
}

TOP_STARTS = frozenset(TOP_KEYWORDS.values())
LEVEL_STARTS = frozenset(LEVEL_KEYWORDS.values())
KEYWORD_TYPES = frozenset(KEYWORDS.values())
WRITTEN = {
    kind: text for table in (KEYWORDS, OPERATORS, PUNCTUATION) for text, kind in table.items()
}

CLOSER = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
OPENER = {closer: opener for opener, closer in CLOSER.items()}
ADDITIVE = frozenset({"PLUS", "MINUS"})
MULTIPLICATIVE = frozenset({"STAR", "SLASH", "AT"})
# After one of these an operand has ended, so that `-` is binary, `(` is a call and `[` a subscript.
OPERAND_ENDS = frozenset({"NAME", "NUMBER", "STRING", "INF", "RPAR", "RSQB", "RBRACE", "QUOTE"})

# Spellings of other languages: found -> (BLV spelling, terminal it stands for).
FOREIGN_OPERATORS = {
    "**": ("^", "CIRCUMFLEX"),
    ".^": ("^", "CIRCUMFLEX"),
    ".*": ("*", "STAR"),
    "./": ("/", "SLASH"),
    ".'": ("'", "QUOTE"),
    "&&": ("and", "AND"),
    "&": ("and", "AND"),
    "||": ("or", "OR"),
    "|": ("or", "OR"),
    "!": ("not", "NOT"),
    ":=": ("=", "EQUAL"),
    "<>": ("!=", "CMP"),
    "=<": ("<=", "REL"),
    "=>": (">=", "REL"),
    "\u2264": ("<=", "REL"),
    "\u2265": (">=", "REL"),
    "\u2260": ("!=", "CMP"),
    "\u2212": ("-", "MINUS"),
    "\u00b7": ("*", "STAR"),
    "\u00d7": ("*", "STAR"),
    "\u2208": ("in", "IN"),
    "\u221e": ("inf", "INF"),
    "\u2018": ("'", "QUOTE"),
    "\u2019": ("'", "QUOTE"),
    "\u201c": ('"', "JUNK"),
    "\u201d": ('"', "JUNK"),
    "\u00a0": (" ", "WS"),
}
# Words of other modelling languages where a statement starts: found -> BLV keyword.
FOREIGN_WORDS = {
    "min": "minimize",
    "max": "maximize",
    "minimise": "minimize",
    "maximise": "maximize",
    "minimum": "minimize",
    "maximum": "maximize",
    "variable": "var",
    "variables": "var",
    "parameter": "param",
    "parameters": "param",
    "params": "param",
    "data": "param",
    "dimension": "dim",
    "dims": "dim",
    "sets": "set",
    "function": "def",
    "import": "include",
    "leader": "upper",
    "outer": "upper",
    "follower": "lower",
    "inner": "lower",
    "st": "subject to",
    "constraints": "subject to",
    "constraint": "subject to",
    "subject_to": "subject to",
    "subjectto": "subject to",
    "subject": "subject to",
    "such": "subject to",
    "to": "subject to",
    "output": "report",
    "assert": "expect",
}
