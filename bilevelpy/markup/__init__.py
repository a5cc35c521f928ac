"""HTML and MathML fragments: for notebooks, reports and pages. Imports nothing of the package."""
