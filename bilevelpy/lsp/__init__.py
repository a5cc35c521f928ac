"""The language server behind ``bilevelpy lsp``. Needs the extra ``lsp``."""
