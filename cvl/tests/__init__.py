"""The suite; test_runner.py is its front page."""
