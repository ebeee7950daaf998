"""The four services; each a house with the same rooms. They never import each other."""
