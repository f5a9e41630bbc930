"""What a person runs on the device: scripts that lie beside each exported file."""
