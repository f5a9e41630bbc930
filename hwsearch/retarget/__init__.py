"""The trials of a finished run at the costs that they have on another target."""
