"""The training library. It never imports the nodes or ComfyUI's server."""
