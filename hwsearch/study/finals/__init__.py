"""After the search: finalists, full fine-tuning within the time, and the front that is offered."""
