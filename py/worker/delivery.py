"""The house's own kinds."""
