"""Custom nodes for the tests' server: none, but it loads the tiny files of tests/tiny_files.py."""
import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("tiny_files", Path(__file__).parent / "pairlora/tests/tiny_files.py")
tiny_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny_files)
tiny_files.install()
NODE_CLASS_MAPPINGS = {}
