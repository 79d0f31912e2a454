"""The commands that slq-karr adds to slq."""
