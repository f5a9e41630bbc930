"""Pictures: found on disk, decoded once, split, and handed out in batches.

``sources`` is where to start reading: ``load_data`` turns what the user wrote into a ``DataSet``.
This package hands no names on, so that checking a folder does not import torch.
"""
