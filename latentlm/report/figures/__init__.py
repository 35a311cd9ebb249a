"""Pictures of a report: one palette, and the kinds of pictures that sections are made of."""
