"""The demo: a folder with a configuration and sample pictures that the project draws itself."""
