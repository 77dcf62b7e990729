"""The page: figures side by side, the comparison table, what leaked, in one self-contained file."""
