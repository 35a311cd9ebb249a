"""Text: corpora, spans, encoding, collation."""
