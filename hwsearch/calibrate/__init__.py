"""From a machine to its profile: nets worth measuring, their files, and the fit to them."""
