"""Files, output folders, devices, provenance and the hub: all that touches the machine and is no model."""
