"""Result files to figures and one HTML page."""
