"""From a finished search to files that a device can be given: export, verify, offer."""
