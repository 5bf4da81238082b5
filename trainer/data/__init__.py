"""Folders of paired images: matching, decoding, and the dataset made of them. No ComfyUI and no torch in here."""
