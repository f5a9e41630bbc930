"""The report room: from the stored results of a run to tables, plots and text."""
