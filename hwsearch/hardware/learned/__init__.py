"""Factors on the roofline of a target, learned from measured networks, with their uncertainty."""
